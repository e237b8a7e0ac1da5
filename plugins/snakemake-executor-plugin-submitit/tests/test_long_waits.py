"""Half a minute and more that SLURM or the executor waits: side by side, on two clusters."""

import subprocess
from contextlib import suppress
from typing import NamedTuple

import pytest
from cluster import wait_until
from project import Project, a_job, toy

# SLURM looks every 30 s whose time will be short by the next look: after 10 s, when a job listens
IN_TIME = ("--submitit-signal-seconds", "20")
HOLDS = "while ! test -e go; do sleep 0.1; done"


class Running(NamedTuple):
    project: Project
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def deaf(slurm, projects) -> Running:
    """A job that does not stop when it is told to: it writes a file instead."""
    project = projects(slurm)
    (project.folder / "deaf.py").write_text(
        "import pathlib, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGUSR2, lambda *_: pathlib.Path('told').touch())\n"
        "time.sleep(600)\n"
    )
    project.write(
        """
        rule all:
            output: "out"
            resources: runtime=1
            shell: "trap '' USR2 TERM; python deaf.py"
        """
    )
    return Running(project, project.start(*IN_TIME))


@pytest.fixture(scope="module")
def stateless(slurm, projects) -> Running:
    """A job that saves nothing, and may be requeued once."""
    project = projects(slurm)
    project.write(
        """
        rule all:
            output: "out"
            resources: runtime=1
            shell: "echo ${{SLURM_RESTART_COUNT:-}}. >> runs; sleep 600"
        """
    )
    return Running(project, project.start(*IN_TIME, "--submitit-requeues", "1"))


@pytest.fixture(autouse=True)
def _side_by_side(deaf, stateless) -> None:
    """Their minute begins before the first test."""


class Outage(NamedTuple):
    running: Project
    submitting: Project
    asking: Project
    dead: str


@pytest.fixture(scope="module")
def outage(another_slurm, projects) -> Outage:
    """The controller is away while one Snakemake has jobs, one submits and one asks.

    A Snakemake before the third, which was killed, has left a job that was cancelled.
    """
    slurm = another_slurm
    running, submitting, asking = (projects(slurm) for _ in range(3))
    toy(running, 1, f"touch started; {HOLDS}; echo ${{{{SLURM_RESTART_COUNT:-}}}} > {{output}}")
    toy(asking, 1, f"echo half > {{output}}; touch started; {HOLDS}; echo whole > {{output}}")
    toy(submitting, 1, "touch {output}")
    processes = [running.start()]
    killed = asking.start()
    # a job whose srun finds no controller fails: it must have come further than RUNNING
    for started in (running.folder / "started", asking.folder / "started"):
        wait_until(started.exists, "running")
    killed.kill()
    killed.wait()
    dead = a_job(asking)
    slurm("scancel", dead)
    wait_until(lambda: asking.jobs()[dead] == "CANCELLED", "cancelled")
    slurm.stop("slurmctld")
    try:
        processes += [submitting.start(), asking.start()]
        running.wait_for("the scheduler does not answer; its jobs go on", "log.txt")
        for project in (submitting, asking):
            project.wait_for("the scheduler does not answer; jobs wait until it does", "log.txt")
    finally:
        slurm.start_slurmctld()
    for project in (running, asking):
        (project.folder / "go").touch()
    for process, project in zip(processes, (running, submitting, asking), strict=True):
        assert process.wait(timeout=120) == 0, project.log
    return Outage(running, submitting, asking, dead)


@pytest.fixture(scope="module")
def vanished(outage, another_slurm, projects) -> tuple[Running, str]:
    """A job whose scheduler has lost its memory; no other follows that could get its id."""
    project = projects(another_slurm)
    toy(project, 1, "sleep 100")
    process = project.start()
    wait_until(lambda: list(project.jobs().values()) == ["RUNNING"], "running")
    id_ = a_job(project)
    another_slurm.stop("slurmctld")
    another_slurm.start_slurmctld("-c")
    return Running(project, process), id_


def test_slurmctld_restarts_while_jobs_run(outage):
    assert outage.running.read("out/0") == "\n"  # started once


def test_a_submission_waits_for_slurmctld(outage):
    assert len(outage.submitting.jobs()) == 1


def test_what_was_dead_before_the_scheduler_answered_is_submitted_again(outage):
    """It is no failure of this run: there are no retries here."""
    states = outage.asking.jobs()
    assert states.pop(outage.dead) == "CANCELLED"
    assert list(states.values()) == ["COMPLETED"]
    assert outage.asking.read("out/0") == "whole\n"


def test_a_job_that_does_not_stop_in_time_is_told(deaf, vanished, slurm):
    project, process = deaf
    wait_until(lambda: (project.folder / "told").exists(), "USR2")
    with suppress(subprocess.CalledProcessError):  # on a slow machine its time is over already
        slurm("scontrol", "update", f"jobid={a_job(project)}", "endtime=now")
    project.wait_until(lambda: process.poll() is not None, "its end")
    assert process.poll() == 1
    assert "ran out of time (resource runtime) on n" in project.log


def test_a_job_out_of_time_that_saves_nothing_is_requeued_so_often_and_then_told(stateless):
    project, process = stateless
    assert process.wait(timeout=120) == 1
    assert "was stopped again after 1 requeues; log: " in project.log
    assert project.read("runs") == ".\n1.\n"


def test_a_job_that_vanished_is_told(vanished):
    """The scheduler has lost its memory."""
    (project, process), id_ = vanished
    assert process.wait(timeout=120) == 1
    # slurmd kills its processes one after the other: the last may still tell how the first ended
    told = ("is no longer known to the scheduler", "failed with exit code 137")
    assert any(f"{id_} {one}; log: " in project.log for one in told), project.log
