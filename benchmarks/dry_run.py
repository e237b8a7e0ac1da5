"""What a dry run of a large grid costs: python benchmarks/dry_run.py [--cells 10000]

Prints one JSON line: wall seconds and peak memory of `snakemake -n` on a study of so many cells.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import yaml

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=10_000)
    cells = parser.parse_args().cells
    study = yaml.safe_load((ROOT / "params" / "demo.yaml").read_text())
    study["grid"][0]["seeds"] = list(range(cells // 10))  # 5 K x 2 margins
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "study.yaml").write_text(yaml.safe_dump(study))
        workflow = ["--snakefile", str(ROOT / "Snakefile"), "-n"]
        command = [sys.executable, "-m", "snakemake", *workflow, "--configfile", "study.yaml"]
        start = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - start
    planned = (done.stdout + done.stderr).split("\npretrain ")[1].split()[0]
    mebibytes = getrusage(RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        json.dumps(
            {"cells": int(planned), "seconds": round(seconds, 1), "peak_mib": round(mebibytes)}
        )
    )


if __name__ == "__main__":
    main()
