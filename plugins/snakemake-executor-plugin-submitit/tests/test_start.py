"""Signals that come before a job's Python can bear them."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from made import programs

from snakemake_executor_plugin_submitit.sbatch import START

WAITS = "touch began; exec sleep 30"  # a Python that still imports


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """Variables of job 7, and a scontrol that notes what it is asked for."""
    bin_ = programs(tmp_path / "bin", scontrol='echo "$@" >> asked')
    return {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}


@pytest.fixture
def start(tmp_path, environment) -> Iterator:
    started = []

    def begin(command: str, requeues: int = 2) -> subprocess.Popen:
        process = subprocess.Popen(
            ["sh", str(START), str(requeues), "sh", "-c", command],
            cwd=tmp_path,
            env=environment,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def signalled(process: subprocess.Popen, folder: Path, number: int) -> None:
    """Signal all processes of a job, as SLURM does, once it waits."""
    while not (folder / "began").exists():
        time.sleep(0.02)
    os.killpg(process.pid, number)


@pytest.mark.parametrize(("starts", "asked"), [("1", "requeue 7\n"), ("2", None)])
def test_before_a_preemption_a_job_is_requeued(start, tmp_path, environment, starts, asked):
    """So often as its requeues allow."""
    environment["SLURM_RESTART_COUNT"] = starts
    process = start(WAITS)
    signalled(process, tmp_path, signal.SIGUSR2)
    assert process.wait(timeout=10) == 128 + signal.SIGUSR2
    file = tmp_path / "asked"
    assert (file.read_text() if file.exists() else None) == asked


def test_after_sigterm_a_job_waits_for_its_end(start, tmp_path):
    """One that had ended by itself would have failed, whatever the reason."""
    process = start(WAITS)
    signalled(process, tmp_path, signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    os.killpg(process.pid, signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("code", [0, 3])
def test_a_job_that_bears_signals_ends_with_its_own_code(start, tmp_path, code):
    process = start(
        f"trap : USR2; touch began; while ! test -e go; do sleep 0.1; done; exit {code}"
    )
    signalled(process, tmp_path, signal.SIGUSR2)
    (tmp_path / "go").touch()
    assert process.wait(timeout=10) == code
    assert not (tmp_path / "asked").exists()
