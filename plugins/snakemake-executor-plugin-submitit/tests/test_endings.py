"""Jobs that end on a real SLURM, each in its way, and what is told of it."""

import os
import signal
import subprocess
from contextlib import suppress
from typing import NamedTuple

import psutil
import pytest
from cluster import Cluster, wait_until
from project import Project, a_job, processes_in, toy

TELL_ID = "echo ${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID > $0.id\n"
JOBS = {
    "well": "touch $1",
    "failing": "echo why >&2; exit 1",
    "killed": "sleep 100",
    "cancelled": "test -e again || sleep 100; touch $1",
}
SNAKEFILE = """
    rule all:
        input: expand("out/{{name}}", name={names})

    rule toy:
        output: "out/{{name}}"
        resources: runtime=5, mem_mb=100
        shell: "sh {{wildcards.name}}.sh {{output}}"
    """


class Ended(NamedTuple):
    """A Snakemake that has ended, its log, and the ids of its jobs by name."""

    project: Project
    log: str
    ids: dict[str, str]


def ended(project: Project, slurm: Cluster, *names: str) -> Ended:
    """Let jobs end in their ways, as one array."""
    for name in names:
        (project.folder / f"{name}.sh").write_text(TELL_ID + JOBS[name])
    project.write(SNAKEFILE.format(names=list(names)))
    process = project.start("--keep-going")
    wait_until(lambda: all(project.read(f"{name}.sh.id") for name in names), "all jobs")
    ids = {name: project.read(f"{name}.sh.id").strip() for name in names}
    assert set(ids.values()) == set(project.jobs())
    if "killed" in names:
        for job in processes_of(project, ids["killed"]):
            with suppress(psutil.NoSuchProcess):  # it ends with the one before
                job.kill()
    if slurm.accounting:  # it hears of a job's node a little later
        accounts = ("sacct", "-X", "-n", "-o", "state", "-j", ids["cancelled"])
        wait_until(lambda: "RUNNING" in slurm(*accounts), "accounts")
    slurm("scancel", ids["cancelled"])
    assert process.wait(timeout=180) == 1
    return Ended(project, project.log, ids)


def processes_of(project: Project, id_: str) -> list[psutil.Process]:
    """Find submitit's processes that run a job of an array."""
    found = []
    for process in processes_in(project.folder):
        with suppress(psutil.Error):
            if "submitit.core._submit" in process.cmdline():
                variables = process.environ()
                parts = (variables["SLURM_ARRAY_JOB_ID"], variables["SLURM_ARRAY_TASK_ID"])
                found += [process] if "_".join(parts) == id_ else []
    assert found
    return found


@pytest.fixture(scope="module")
def by_squeue(slurm, projects) -> Ended:
    return ended(projects(slurm), slurm, *JOBS)


@pytest.fixture(scope="module")
def by_sacct(slurm_with_sacct, projects) -> Ended:
    return ended(projects(slurm_with_sacct), slurm_with_sacct, "well", "cancelled")


@pytest.mark.slurm  # it asks for its fixture by name
@pytest.mark.parametrize("by", ["squeue", pytest.param("sacct", marks=pytest.mark.slow)])
def test_a_cancelled_job_is_told_and_the_others_are_kept(by, request):
    project, log, ids = request.getfixturevalue(f"by_{by}")
    assert f"{ids['cancelled']} was cancelled on n" in log
    assert ".snakemake/submitit/" in log
    assert (project.folder / "out/well").exists()
    (project.folder / "again").touch()
    assert project.run("out/cancelled") == 0, project.log  # nothing left behind is in the way


def test_a_failing_command_is_told_with_its_log(by_squeue):
    project, log, ids = by_squeue
    assert f"{ids['failing']} failed with exit code 1; log: " in log
    assert "why" in project.job_log(ids["failing"]).read_text()


def test_a_job_that_is_killed_without_a_word_is_told(by_squeue):
    assert f"{by_squeue.ids['killed']} died without an error message on n" in by_squeue.log


def test_a_job_that_takes_more_memory_than_it_asked_for_is_told(slurm_with_cgroups, tmp_path):
    project = Project(tmp_path, slurm_with_cgroups)
    project.write(
        """
        rule all:
            output: "out"
            resources: mem_mb=200
            shell: "python -c 'bytearray(10**9).count(1)' && touch {output}"
        """
    )
    assert project.run() == 1
    assert "ran out of memory (resource mem_mb)" in project.log


def test_a_full_spool_is_told_and_a_release_goes_on(project, slurm):
    """The node cannot take the job's script: SLURM drains it and holds the job."""
    spool = slurm.folder / "spool-n1"
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(spool)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot mount a small file system here")
    try:
        with suppress(OSError):
            (spool / "full").write_bytes(bytes(1_000_000))
        toy(project, 1, "touch {output}")
        process = project.start("--set-resources", "toy:slurm_extra='--nodelist=n1'")
        project.wait_for("waits until somebody acts: launch failed requeued held", "log.txt")
    finally:
        subprocess.run(["umount", str(spool)], check=True)
        slurm.set_up_again()
    slurm("scontrol", "release", a_job(project))
    assert process.wait(timeout=180) == 0, project.log
    assert list(project.jobs().values()) == ["COMPLETED"]


SLEEPING = "touch started-{wildcards.i}; sleep 100"


def commands(project: Project) -> list[psutil.Process]:
    """The processes of the jobs' own commands."""
    found = []
    for process in processes_in(project.folder):
        with suppress(psutil.Error):
            found += [process] if "sleep" in process.cmdline() else []
    return found


def interrupted(project: Project, *options: str) -> None:
    """Interrupt Snakemake while two jobs run; returns when no process of theirs is left."""
    toy(project, 2, SLEEPING)
    process = project.start(*options)
    wait_until(lambda: len(list(project.folder.glob("started-*"))) == 2, "running")
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=180) == 1
    # not the Snakemakes in the jobs: one has hung once, told to end while it ended
    wait_until(lambda: not commands(project), "end of the commands")


def test_ctrl_c_cancels_what_was_submitted(project):
    interrupted(project)
    wait_until(lambda: set(project.jobs().values()) == {"CANCELLED"}, "cancelled")


def test_ctrl_c_ends_local_jobs(tmp_path):
    interrupted(Project(tmp_path), "--submitit-cluster", "local")
