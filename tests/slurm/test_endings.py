"""How jobs end on a real SLURM, and what is told of it."""

import os
import signal
import subprocess
import time
from contextlib import suppress

import pytest
from cluster import wait_until
from project import Project, a_job, toy


@pytest.mark.parametrize("accounting", [False, True], ids=["squeue", "sacct"])
def test_a_cancelled_job_is_told_and_the_others_are_kept(accounting, request, tmp_path):
    slurm = request.getfixturevalue("slurm_with_sacct" if accounting else "slurm")
    project = Project(tmp_path, slurm)
    toy(project, 3, "test {wildcards.i} != 1 || test -e again || sleep 100; touch {output}")
    process = project.start("--keep-going")
    wait_until(lambda: list(project.jobs().values()).count("COMPLETED") == 2, "two done")
    (left,) = (id_ for id_, state in project.jobs().items() if state == "RUNNING")
    slurm("scancel", left)
    assert process.wait(timeout=60) == 1
    assert f"{left} was cancelled on n" in project.log
    assert ".snakemake/submitit/" in project.log
    assert (tmp_path / "out/0").exists()
    assert (tmp_path / "out/2").exists()
    (tmp_path / "again").touch()
    assert project.run() == 0, project.log  # nothing that was left behind is in the way


def test_a_failing_command_is_told_with_its_log(project):
    toy(project, 2, "echo why >&2; test {wildcards.i} = 0 && touch {output}")
    assert project.run("--keep-going") == 1
    (id_,) = (id_ for id_ in project.jobs() if id_.endswith("_1"))
    assert f"{id_} failed with exit code 1; log: " in project.log
    assert "why" in project.read(f".snakemake/submitit/{id_}_0_log.out")
    assert (project.folder / "out/0").exists()


def test_a_job_that_is_killed_without_a_word_is_told(project):
    toy(project, 1, "sleep 100")
    process = project.start()
    project.wait_for("Starting with", f".snakemake/submitit/{a_job(project)}_0_log.out")
    pids = subprocess.check_output(["pgrep", "-f", f"_submit {project.folder}"], text=True).split()
    for pid in pids:
        os.kill(int(pid), signal.SIGKILL)
    assert process.wait(timeout=60) == 1
    assert "died without an error message on n" in project.log


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


def test_a_job_out_of_time_that_saves_nothing_is_requeued_so_often_and_then_told(project):
    project.write(
        """
        rule all:
            output: "out"
            resources: runtime=1
            shell: "echo ${{SLURM_RESTART_COUNT:-}}. >> runs; sleep 600"
        """
    )
    assert project.run("--submitit-signal-seconds", "55", "--submitit-requeues", "1") == 1
    assert "was stopped again after 1 requeues; log: " in project.log
    assert project.read("runs") == ".\n1.\n"


SAVES = """
import os, pathlib, signal, sys, time
state = pathlib.Path("state")
count = int(state.read_text()) if state.exists() else 0
print("starts at", count, flush=True, file=open("starts", "a"))
def save(*_):
    state.write_text(str(count))
    sys.exit(75)
signal.signal(signal.SIGUSR2, save)
signal.signal(signal.SIGTERM, save)
while count < 60:
    time.sleep(0.1)
    count += 1
pathlib.Path(sys.argv[1]).write_text(f"{count}\\n")
"""


@pytest.fixture
def saving(project):
    """One job of six seconds that saves its state on signals."""
    (project.folder / "saves.py").write_text(SAVES)
    project.write(
        """
        rule all:
            output: "out"
            resources: runtime=5, slurm_partition="main"
            shell: "python saves.py {output}"
        """
    )
    return project


def goes_on(project: Project, process: subprocess.Popen[str]) -> None:
    """The job starts again where it stopped, under its id, and Snakemake sees nothing of it."""
    assert process.wait(timeout=120) == 0, project.log
    first, second = (int(line.split()[-1]) for line in project.read("starts").splitlines())
    assert first == 0 < second
    assert project.read("out") == "60\n"
    assert len(project.jobs()) == 1


def test_a_preempted_job_goes_on(saving, slurm):
    process = saving.start()
    saving.wait_for("starts at 0", "starts")
    time.sleep(1)
    command = ("sbatch", "--parsable", "-o", "/dev/null", "-p", "high", "--exclusive", "-N2")
    command += ("--wrap", "sleep 300")
    urgent = slurm(*command).strip()
    try:
        wait_until(lambda: "PENDING" in saving.jobs().values(), "preemption")
        wait_until(lambda: saving.read("state"), "state")
        time.sleep(1)
    finally:
        slurm("scancel", urgent)
    goes_on(saving, process)


def test_a_job_that_is_requeued_by_hand_goes_on(saving, slurm):
    process = saving.start()
    saving.wait_for("starts at 0", "starts")
    time.sleep(1)
    slurm("scontrol", "requeue", a_job(saving))
    goes_on(saving, process)


def test_a_job_whose_node_is_set_down_goes_on(saving, slurm):
    process = saving.start()
    saving.wait_for("starts at 0", "starts")
    time.sleep(1)
    node = slurm("squeue", "-h", "-o", "%N", "-j", a_job(saving)).strip()
    slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        goes_on(saving, process)
    finally:
        slurm.set_up_again()


def test_a_job_that_may_not_be_requeued_and_loses_its_node_is_told(project, slurm):
    project.write(
        """
        rule all:
            output: "out"
            resources: slurm_extra="--no-requeue"
            shell: "touch started; sleep 100"
        """
    )
    process = project.start()
    wait_until(lambda: (project.folder / "started").exists(), "start")
    node = slurm("squeue", "-h", "-o", "%N", "-j", a_job(project)).strip()
    slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        assert process.wait(timeout=60) == 1
        assert f"lost its node on {node}; log:" in project.log
    finally:
        slurm.set_up_again()


def test_slurmctld_restarts_while_jobs_run(project, slurm):
    shell = "touch started-{wildcards.i}; sleep 8; echo ${{SLURM_RESTART_COUNT:-}} > {output}"
    toy(project, 4, shell)
    process = project.start()
    # a job whose srun finds no controller fails: it must have come further than RUNNING
    wait_until(lambda: len(list(project.folder.glob("started-*"))) == 4, "running")
    slurm.stop("slurmctld")
    project.wait_for("the scheduler does not answer; its jobs go on", "log.txt")
    slurm.start_slurmctld()
    assert process.wait(timeout=120) == 0, project.log
    assert [project.read(f"out/{i}") for i in range(4)] == ["\n"] * 4


def test_a_submission_waits_for_slurmctld(project, slurm):
    slurm.stop("slurmctld")
    toy(project, 1, "touch {output}")
    process = project.start()
    try:
        project.wait_for("sbatch reaches no controller; again in 5 s", "log.txt")
    finally:
        slurm.start_slurmctld()
    assert process.wait(timeout=120) == 0, project.log


def test_a_job_that_vanished_is_told(project, slurm):
    """The scheduler has lost its memory."""
    toy(project, 1, "sleep 97")
    process = project.start()
    wait_until(lambda: list(project.jobs().values()) == ["RUNNING"], "running")
    id_ = a_job(project)
    slurm.stop("slurmctld")
    slurm.start_slurmctld("-c")
    assert process.wait(timeout=120) == 1
    assert f"{id_} is no longer known to the scheduler; log: " in project.log


def test_a_job_that_does_not_stop_in_time_is_told(project):
    project.write(
        """
        rule all:
            output: "out"
            resources: runtime=1
            shell: "trap '' USR2 TERM; python -c 'import signal, time; "
                "[signal.signal(s, signal.SIG_IGN) for s in (12, 15)]; time.sleep(600)'"
        """
    )
    assert project.run("--submitit-signal-seconds", "3") == 1
    assert "ran out of time (resource runtime) on n" in project.log


def test_a_job_that_waits_for_somebody_to_act_is_told(project, slurm):
    toy(project, 1, "touch {output}")
    process = project.start("--set-resources", "toy:slurm_extra='--hold'")
    project.wait_for("waits until somebody acts: JobHeldUser", "log.txt")
    slurm("scontrol", "release", a_job(project))
    assert process.wait(timeout=60) == 0, project.log


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
    assert process.wait(timeout=60) == 0, project.log
    assert list(project.jobs().values()) == ["COMPLETED"]


def test_ctrl_c_cancels_what_was_submitted(project):
    toy(project, 3, "sleep 100")
    process = project.start()
    wait_until(lambda: list(project.jobs().values()).count("RUNNING") == 3, "running")
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 1
    wait_until(lambda: set(project.jobs().values()) == {"CANCELLED"}, "cancelled")
    wait_until(
        lambda: not subprocess.run(["pgrep", "-f", "sleep 100"], capture_output=True).stdout,
        "end of the commands",
    )


def test_ctrl_c_ends_local_jobs(tmp_path):
    project = Project(tmp_path)
    toy(project, 2, "echo $$ > pid-{wildcards.i}; sleep 98")
    process = project.start("--submitit-cluster", "local")
    wait_until(lambda: project.read("pid-0") and project.read("pid-1"), "running")
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 1
    wait_until(
        lambda: not subprocess.run(["pgrep", "-f", "sleep 98"], capture_output=True).stdout,
        "end of the commands",
    )
