"""The doctor beside a real SLURM."""

import json
import subprocess
import sys


def test_it_tells_the_limits_of_the_cluster(slurm, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "eqco", "doctor", "--json"],
        cwd=tmp_path,
        env=slurm.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    (found,) = (one for one in json.loads(done.stdout) if one["check"] == "slurm")
    assert found["state"] == "ok"
    assert found["text"].endswith("MaxArraySize 1001, MaxJobCount 10000")  # SLURM's own
