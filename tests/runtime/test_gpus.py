"""Which GPU a process takes, with real locks between real processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from eqco.runtime import gpus

CLAIM = """
import sys, time
from pathlib import Path
from eqco.runtime.gpus import claim
print(claim(["a", "b", "c"], Path(sys.argv[1])), flush=True)
time.sleep(60)
"""


def test_each_process_has_its_own_and_one_too_many_waits_for_a_dead_one(tmp_path):
    processes = []
    try:
        for _ in range(4):
            command = [sys.executable, "-c", CLAIM, str(tmp_path)]
            processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            if len(processes) < 4:
                assert processes[-1].stdout.readline() == f"{len(processes) - 1}\n"
        processes[1].kill()
        assert processes[3].stdout.readline() == "1\n"
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        *[("", 0), ("0", 1), ("3,5", 2), ("GPU-1a,GPU-2b,GPU-3c", 3)],
        *[("-1", 0), ("NoDevFiles", 0), ("0,-1,1", 1)],  # as CUDA and SLURM write for none
    ],
)
def test_the_environment_says_how_many_there_are(monkeypatch, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus.count() == expected


def test_without_it_the_device_files_do(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.count() == len(list(Path("/dev").glob("nvidia[0-9]*")))
