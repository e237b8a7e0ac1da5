"""Faults that one job, or one round of questions, has to bear, not the grid."""

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


SACCT = """#!/bin/sh
echo 'JobID|State|Reason|NodeList'
echo '7|RUNNING|None|n1'
"""


@pytest.mark.parametrize("fault", [b"\0", None], ids=["cannot be executed", "is away"])
def test_a_sacct_that_cannot_be_started_is_asked_again(tmp_path, monkeypatch, fault):
    sacct = tmp_path / "sacct"
    sacct.write_text(SACCT)
    sacct.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    cluster = Slurm()
    if fault is None:
        sacct.rename(tmp_path / "away")
    else:
        sacct.write_bytes(fault)
    assert cluster.states(["7"]) is None
    sacct.unlink(missing_ok=True)
    sacct.write_text(SACCT)
    sacct.chmod(0o755)
    assert cluster.states(["7"]) == {"7": State("RUNNING", "None", "n1")}
