"""A job that is stopped and starts again on a real SLURM, and one that may not."""

from typing import NamedTuple

import pytest
from project import Project

SAVES = """
import pathlib, signal, sys, time
state = pathlib.Path("state")
count = int(state.read_text()) if state.exists() else 0
def save(*_):
    state.write_text(str(count))
    sys.exit(75)
signal.signal(signal.SIGUSR2, save)
signal.signal(signal.SIGTERM, save)
print("starts at", count, flush=True, file=open("starts", "a"))
while not pathlib.Path("go").exists():
    count += 1
    time.sleep(0.1)
pathlib.Path(sys.argv[1]).write_text(f"{count}\\n")
"""
SNAKEFILE = """
    rule all:
        input: "out", "lost"

    rule saves:
        output: "out"
        resources: runtime=5, slurm_partition="main"
        shell: "python saves.py {output}"

    rule lost:
        output: "lost"
        resources: slurm_extra="--hold --no-requeue"
        shell: "touch started-lost; sleep 100"
    """


class Disturbed(NamedTuple):
    """A Snakemake that has ended, and where its job that saves its state began: once a start."""

    project: Project
    starts: list[int]
    lost: str
    node: str


@pytest.fixture(scope="module")
def disturbed(slurm, projects) -> Disturbed:
    """One job is preempted, then requeued by hand, then loses its node, together with another."""
    project = projects(slurm)
    (project.folder / "saves.py").write_text(SAVES)
    project.write(SNAKEFILE)

    def starts() -> list[int]:
        return [int(line.split()[-1]) for line in project.read("starts").splitlines()]

    def wait_for_start(number: int) -> None:
        project.wait_until(lambda: len(starts()) >= number, f"start {number}")

    process = project.start("--keep-going")
    wait_for_start(1)
    lines = slurm("squeue", "-h", "-o", "%j|%i").splitlines()
    ids = {name.split("-")[0]: id_ for name, id_ in (line.split("|") for line in lines)}
    slurm.preempt(ids["saves"])
    wait_for_start(2)
    slurm("scontrol", "requeue", ids["saves"])
    wait_for_start(3)
    project.wait_for("waits until somebody acts: JobHeldUser", "log.txt")
    slurm("scontrol", "release", ids["lost"])
    project.wait_until((project.folder / "started-lost").exists, "the other job")
    node = slurm("squeue", "-h", "-o", "%N", "-j", ids["lost"]).strip()
    # both, or the job goes on at once on the other, and no node is free to be set up again
    slurm("scontrol", "update", "nodename=n1,n2", "state=down", "reason=test")
    project.wait_for("Error in rule lost", "log.txt")
    slurm.resume()  # it may have begun by itself: then the nodes are not idle

    def goes_on() -> bool:
        # a node that still ends the job's former process refuses it, and SLURM holds it
        if "launch failed" in slurm("squeue", "-h", "-o", "%r", "-j", ids["saves"]):
            slurm("scontrol", "release", ids["saves"])
        return len(starts()) >= 4

    project.wait_until(goes_on, "start 4")
    (project.folder / "go").touch()
    assert process.wait(timeout=180) == 1
    assert set(project.jobs()) == set(ids.values())
    return Disturbed(project, starts(), ids["lost"], node)


def test_a_preempted_job_goes_on(disturbed):
    assert disturbed.starts[0] == 0 < disturbed.starts[1]


def test_a_job_that_is_requeued_by_hand_goes_on(disturbed):
    assert disturbed.starts[1] < disturbed.starts[2]


def test_a_job_whose_node_is_set_down_goes_on(disturbed):
    assert disturbed.starts[2] < disturbed.starts[3]


def test_snakemake_sees_nothing_of_it(disturbed):
    """The job starts under its id, and ends once."""
    project, starts, *_ = disturbed
    assert len(starts) == 4
    assert starts[3] < int(project.read("out"))
    assert project.log.count("rule saves:") == 1
    assert "Error in rule saves" not in project.log


def test_a_job_that_waits_for_somebody_to_act_is_told_and_a_release_goes_on(disturbed):
    assert f"{disturbed.lost} waits until somebody acts: JobHeldUser" in disturbed.project.log
    assert (disturbed.project.folder / "started-lost").exists()


def test_a_job_that_may_not_be_requeued_and_loses_its_node_is_told(disturbed):
    told = f"{disturbed.lost} lost its node on {disturbed.node}; log:"
    assert told in disturbed.project.log
