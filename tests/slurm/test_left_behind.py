"""Jobs that a killed Snakemake left behind: whose word the next one takes, and for what."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from cluster import wait_until
from project import Project

LOCAL = ("--submitit-cluster", "local")


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Project]:
    """Without SLURM: jobs are processes of this machine."""
    project = Project(tmp_path)
    yield project
    project.end()


def left_behind(project: Project) -> str:
    """Start Snakemake and kill it when its one job has written ``started``; the job's id."""
    process = project.start(*LOCAL)
    wait_until(lambda: (project.folder / "started").exists(), "started")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (record,) = (project.folder / ".snakemake/submitit").glob("*.json")
    return record.stem


def kill_job(id_: str) -> None:
    """As a node that is lost."""
    watcher = psutil.Process(int(id_))
    for process in [watcher, *watcher.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


HALF = """
    rule all:
        output: "out"
        shell: "echo start >> runs; echo half > {output}; touch started; "
            "while ! test -e go; do sleep 0.1; done; test $(cat go) = well; echo whole > {output}"
    """


@pytest.mark.parametrize(
    ("how", "message"),
    [("killed", "died before it could tell why"), ("failing", "failed with exit code 1")],
)
def test_what_died_after_the_restart_is_not_believed_for_its_outputs(local, how, message):
    local.write(HALF)
    id_ = left_behind(local)
    process = local.start(*LOCAL)
    local.wait_for("of a Snakemake that is gone", "log.txt")
    if how == "killed":
        kill_job(id_)
    else:
        (local.folder / "go").write_text("badly")
    assert process.wait(timeout=60) == 1, local.log
    log = f".snakemake/submitit/{id_}_0_log.out"
    assert f"{id_} {message}; log: {local.folder}/{log}" in local.log
    assert "rule all" in local.read(log)
    assert not (local.folder / "out").exists()


def test_what_died_after_the_restart_is_tried_again_as_often_as_others(local):
    local.write(HALF)
    id_ = left_behind(local)
    process = local.start(*LOCAL, "--retries", "1")
    local.wait_for("of a Snakemake that is gone", "log.txt")
    kill_job(id_)
    local.wait_for("start\nstart", "runs")
    (local.folder / "go").write_text("well")
    assert process.wait(timeout=60) == 0, local.log
    assert local.read("out") == "whole\n"
    assert local.log.count("of a Snakemake that is gone") == 1
    assert (local.folder / f".snakemake/submitit/{id_}_0_log.out").exists()


def test_several_jobs_take_the_word_of_the_one_that_made_them(local):
    """A group whose first step is done is, for the next Snakemake, two jobs."""
    local.write(
        """
        rule all:
            input: "rated/0", "rated/1"

        rule train:
            output: "trained"
            group: "cell"
            shell: "echo start >> runs; touch {output}"

        rule rate:
            input: "trained"
            output: "rated/{i}"
            group: "cell"
            shell: "echo start >> runs; touch started; "
                "while ! test -e go; do sleep 0.1; done; echo {wildcards.i} > {output}"
        """
    )
    left_behind(local)
    wait_until(lambda: local.read("runs").count("start") == 3, "both")
    process = local.start(*LOCAL)
    wait_until(lambda: local.log.count("of a Snakemake that is gone") == 2, "two jobs")
    (local.folder / "go").touch()
    assert process.wait(timeout=60) == 0, local.log
    assert local.read("runs").count("start") == 3
    assert [local.read(f"rated/{i}") for i in range(2)] == ["0\n", "1\n"]
