"""Faults that one job, or one round of questions, has to bear, not the grid."""

import os
import re
import signal
from pathlib import Path

import pytest
from project import Project

from snakemake_executor_plugin_submitit.clusters import Slurm, State


def test_a_result_that_cannot_be_read_fails_its_job_alone(tmp_path):
    """A crash of the file server: of the result's bytes nothing but zeros arrived."""
    project = Project(tmp_path)
    project.write(
        """
        rule all:
            input: expand("out/{i}", i=range(2))

        rule toy:
            output: "out/{i}"
            shell:
                "test {wildcards.i} = 1 || head -c 64 /dev/zero"
                " > .snakemake/submitit/${{SUBMITIT_LOCAL_JOB_ID}}_0_result.pkl;"
                "while ! test -e go; do sleep 0.1; done; touch {output}"
        """
    )
    try:
        process = project.start("--submitit-cluster", "local", "--keep-going")
        told = r"left a result that cannot be read: UnpicklingError: .*; log: .*_0_log.out"
        project.wait_for(told, "log.txt")
        (tmp_path / "go").touch()
        assert process.wait(timeout=180) == 1
        assert "Finished jobid" in project.log
        assert (tmp_path / "out/1").exists()
    finally:
        project.end()


def programs(folder: Path, **scripts: str) -> Path:
    """A folder with SLURM's programs, as far as they are given, as shell scripts."""
    folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


ACCOUNTED = "echo 'JobID|State|Reason|NodeList'"


@pytest.mark.parametrize("fault", [b"\0", None], ids=["cannot be executed", "is away"])
def test_a_sacct_that_cannot_be_started_is_asked_again(tmp_path, monkeypatch, fault):
    script = f"{ACCOUNTED}; echo '7|RUNNING|None|n1'"
    sacct = programs(tmp_path, sacct=script) / "sacct"
    monkeypatch.setenv("PATH", str(tmp_path))
    cluster = Slurm()
    if fault is None:
        sacct.rename(tmp_path / "away")
    else:
        sacct.write_bytes(fault)
    assert cluster.states(["7"]) is None
    sacct.unlink(missing_ok=True)
    programs(tmp_path, sacct=script)
    assert cluster.states(["7"]) == {"7": State("RUNNING", "None", "n1")}


def test_a_job_that_accounting_does_not_know_yet_is_looked_for_in_the_queue(tmp_path, monkeypatch):
    squeue = "echo '8|RUNNING|None|n1'"
    folder = programs(tmp_path, sacct=f"{ACCOUNTED}; echo '7|COMPLETED|None|n1'", squeue=squeue)
    monkeypatch.setenv("PATH", str(folder))
    cluster = Slurm()
    running, completed = (State(name, "None", "n1") for name in ("RUNNING", "COMPLETED"))
    assert cluster.states(["7", "8"]) == {"7": completed, "8": running}
    programs(tmp_path, squeue="echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert cluster.states(["7", "8"]) == {"7": completed}
    programs(tmp_path, squeue="exit 1")  # no controller: it is not known to have ended
    assert cluster.states(["7", "8"])["8"].active


def test_pending_jobs_of_an_array_with_holes_are_found(tmp_path, monkeypatch):
    """sacct abbreviates what is left: 123_[0-998:2%256]."""
    sacct = f"{ACCOUNTED}; echo '123_[0-998:2%256]|PENDING|Priority|'"
    squeue = 'for i in 0 2 4; do echo "123_$i|PENDING|Priority|"; done'
    monkeypatch.setenv("PATH", str(programs(tmp_path, sacct=sacct, squeue=squeue)))
    states = Slurm().states(["123_0", "123_4"])
    assert {states[id_].name for id_ in ("123_0", "123_4")} == {"PENDING"}


@pytest.mark.parametrize("name", ["EXPEDITING", "RESV_DEL_HOLD", "REVOKED", "?"])
def test_a_state_that_a_newer_slurm_has_is_no_end(name):
    assert State(name).active
    assert not State("TIMEOUT").active


def test_a_scancel_that_fails_leaves_the_records(tmp_path):
    """And what was submitted asks for requeues, and gives its step its CPUs."""
    project = Project(tmp_path)
    project.write(
        """
        rule toy:
            output: "out"
            threads: 3
            shell: "touch {output}"
        """
    )
    refused = "echo 'scancel: error: Unable to contact slurm controller' >&2; exit 1"
    folder = programs(
        tmp_path / "bin",
        sbatch='cp "$1" submitted.sh; echo Submitted batch job 7',
        sacct=f"{ACCOUNTED}; echo '7|RUNNING|None|n1'",
        scancel=refused,
        srun="exit 0",
    )
    project.environment = {**project.environment, "PATH": f"{folder}:{os.environ['PATH']}"}
    try:
        process = project.start("--cores", "3")
        project.wait_until(lambda: (tmp_path / ".snakemake/submitit/7.json").exists(), "the record")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 1
    finally:
        project.end()
    assert "scancel failed: scancel: error: Unable to contact slurm controller" in project.log
    assert (tmp_path / ".snakemake/submitit/7.json").exists()
    script = (tmp_path / "submitted.sh").read_text()
    assert "#SBATCH --requeue\n" in script
    assert re.search(r"^srun .*--cpus-per-task=3 ", script, re.M)
