"""The members of a group share what their job was given, and wait for it without haste."""

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cluster import wait_until
from project import Project, processes_in

ONE_GPU = (
    *("--submitit-cluster", "local", "--resources", "gpus=1"),
    *("--set-resource-scopes", "gpus=local"),
)
# fails where another is at it
ALONE = "mkdir busy; sleep 1; rmdir busy; touch {output}"


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    project.end()


def test_members_take_turns_on_the_gpu_of_their_job(local):
    local.write(
        f"""
        rule all:
            input: expand("out/{{i}}", i=range(3))

        rule toy:
            output: "out/{{i}}"
            group: "cell"
            resources: gpus=1
            shell: "{ALONE}"
        """
    )
    assert local.run(*ONE_GPU, "--group-components", "cell=3") == 0, local.log


def test_no_more_members_run_at_once_than_their_job_has_cores(local):
    """One that needs no GPU waits for a core that one with a GPU has."""
    local.write(
        f"""
        rule all:
            input: "a", "c"

        rule a:
            output: "a"
            group: "cell"
            resources: gpus=1
            shell: "{ALONE}"

        rule b:
            output: "b"
            group: "cell"
            priority: 1
            resources: gpus=1
            shell: "touch {{output}}"

        rule c:
            input: "b"
            output: "c"
            group: "cell"
            shell: "{ALONE}"
        """
    )
    assert local.run(*ONE_GPU, "--group-components", "cell=2") == 0, local.log


def test_a_job_whose_members_wait_takes_no_time_of_its_cores(local):
    local.write(
        """
        rule all:
            input: expand("out/{i}", i=range(2))

        rule toy:
            output: "out/{i}"
            group: "cell"
            threads: 1000
            resources: gpus=1
            shell: "touch started; while ! test -e go; do sleep 0.1; done; touch {output}"
        """
    )
    process = local.start(*ONE_GPU, "--group-components", "cell=2")
    wait_until(lambda: (local.folder / "started").exists(), "started")
    (inner,) = (p for p in processes_in(local.folder) if "remote" in command_of(p))
    before = seconds(inner)
    time.sleep(2)  # to be measured
    assert seconds(inner) - before < 0.2
    (local.folder / "go").touch()
    assert process.wait(timeout=180) == 0, local.log


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # it has ended since it was listed
        return []


def seconds(process: psutil.Process) -> float:
    """The CPU time of a process and of its children that have ended."""
    times = process.cpu_times()
    return times.user + times.system + times.children_user + times.children_system


def test_groups_travel_in_one_job(project):
    project.write(
        """
        rule all:
            input: expand("rated/{i}", i=range(2))

        rule train:
            output: "out/{i}"
            group: "cell"
            shell: "echo $SLURM_JOB_ID > {output}"

        rule rate:
            input: "out/{i}"
            output: "rated/{i}"
            group: "cell"
            shell: "echo $SLURM_JOB_ID > {output}"
        """
    )
    assert project.run() == 0, project.log
    assert len(project.jobs()) == 2
    for i in range(2):
        assert project.read(f"out/{i}") == project.read(f"rated/{i}")
