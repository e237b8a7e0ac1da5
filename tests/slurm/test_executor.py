"""The executor on a real SLURM: what is asked for, arrays, and how jobs end."""

import os
import signal
import subprocess
import time
from contextlib import suppress

import pytest
from cluster import wait_until
from project import Project
from snakemake.common import tests as snakemake_tests

from snakemake_executor_plugin_submitit import ExecutorSettings

TOY = """
    rule all:
        input: expand("out/{{i}}", i=range({count}))

    rule toy:
        output: "out/{{i}}"
        resources: runtime=5, mem_mb=100
        shell: {shell!r}
    """


def toy(project: Project, count: int, shell: str) -> None:
    project.write(TOY.format(count=count, shell=shell))


class SnakemakesOwnTests(snakemake_tests.TestWorkflowsLocalStorageBase):
    __test__ = False
    cluster = ""

    def get_executor(self) -> str:
        return "submitit"

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(cluster=self.cluster)


class TestSnakemakesOwnOnLocal(SnakemakesOwnTests):
    __test__ = True
    cluster = "local"


class TestSnakemakesOwnOnDebug(SnakemakesOwnTests):
    __test__ = True
    cluster = "debug"


class TestSnakemakesOwnOnSlurm(SnakemakesOwnTests):
    __test__ = True
    cluster = "slurm"

    @pytest.fixture(autouse=True)
    def _on_slurm(self, slurm, monkeypatch):
        monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])


def test_resources_are_what_sbatch_asks_for(project):
    project.write(
        """
        rule all:
            output: "out/job"
            threads: 3
            resources:
                slurm_partition="high", slurm_account="lab", constraint="fast",
                gpus=2, mem_mb=300, runtime=17, nodes=2,
                slurm_extra="--comment='two words' --no-kill",
            shell: "scontrol show job $SLURM_JOB_ID -o > {output}; "
                "echo gpus=$CUDA_VISIBLE_DEVICES >> {output}; "
                "srun --overlap -N2 -n2 -l hostname >> {output}"
        """
    )
    assert project.run() == 0, project.log
    told = project.read("out/job")
    for expected in (
        *("Partition=high", "Account=lab", "Features=fast", "NumNodes=2", "CPUs/Task=3"),
        *("TresPerNode=gres:gpu:2", "MinMemoryNode=300M", "TimeLimit=00:17:00"),
        *("Comment=two words", "JobName=all", "gpus=0,1\n", "\n1: "),
    ):
        assert expected in told, expected


def test_gres_is_passed_on(project):
    project.write(
        """
        rule all:
            output: "out/gpus"
            resources: gres="gpu:1"
            shell: "echo $CUDA_VISIBLE_DEVICES $SLURM_JOB_NUM_NODES > {output}"
        """
    )
    assert project.run() == 0, project.log
    assert project.read("out/gpus") in ("0 1\n", "1 1\n")


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        ("gpus=-1", "resource gpus: -1: must be a whole number from 1"),
        ("slurm_partition='a\\nb'", r"resource slurm_partition: 'a\nb': must be one line of text"),
        ("slurm_extra='-p main'", "resource slurm_extra: '-p': must be sbatch's long options"),
        ("slurm_partition='nowhere'", "invalid partition specified: nowhere"),
        ("gpus=3", "Requested node configuration is not available"),
    ],
)
def test_a_request_that_cannot_be_met_is_told_at_once(project, resource, message):
    project.write(
        f"""
        rule all:
            output: "out"
            resources: {resource}
            shell: "touch {{output}}"
        """
    )
    assert project.run() == 1
    assert message in project.log
    assert set(project.jobs().values()) <= {"FAILED"}  # a trace of the refusal


def test_a_qos_is_asked_for(slurm_with_sacct, tmp_path):
    project = Project(tmp_path, slurm_with_sacct)
    slurm_with_sacct("sacctmgr", "-i", "add", "qos", "gold")
    project.write(
        """
        rule all:
            output: "out"
            resources: slurm_qos="gold"
            shell: "scontrol show job $SLURM_JOB_ID > {output}"
        """
    )
    assert project.run() == 0, project.log
    assert "QOS=gold" in project.read("out")


def test_ready_jobs_are_one_array_and_all_are_asked_for_at_once(project, tmp_path):
    """Counted by programs of the same names that note each call and run the real ones."""
    calls = tmp_path / "calls"
    calls.mkdir()
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name in ("sbatch", "squeue", "sacct", "scontrol", "scancel"):
        real = subprocess.check_output(["which", name], text=True).strip()
        (bin_ / name).write_text(f'#!/bin/sh\necho >> {calls}/{name}\nexec {real} "$@"\n')
        (bin_ / name).chmod(0o755)
    project.environment = {
        **project.environment,
        "PATH": f"{bin_}:{os.environ['PATH']}",
    }
    toy(project, 30, "touch {output}")
    began = time.monotonic()
    code = project.run("--submitit-array-parallelism", "4")
    seconds = time.monotonic() - began
    assert code == 0, project.log
    count = {path.name: path.read_text().count("\n") for path in calls.iterdir()}
    assert count.pop("sbatch") == 1
    assert count.pop("sacct") == 1  # is accounting on?
    assert count.pop("squeue") <= seconds  # a round a second
    assert count == {}
    assert len({id_.split("_")[0] for id_ in project.jobs()}) == 1
    assert not list((project.folder / ".snakemake/submitit").glob("*.pkl"))


def test_no_more_of_an_array_run_at_once_than_asked_for(project):
    toy(project, 8, "date +%s.%N > {output}; sleep 1; date +%s.%N >> {output}")
    assert project.run("--submitit-array-parallelism", "2") == 0, project.log
    times = [[float(t) for t in project.read(f"out/{i}").split()] for i in range(8)]
    for start, _ in times:
        assert sum(begin <= start < end for begin, end in times) <= 2


def test_an_array_has_a_size(project):
    toy(project, 5, "touch {output}")
    assert project.run("--submitit-array-size", "2") == 0, project.log
    assert len({id_.split("_")[0] for id_ in project.jobs()}) == 3


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
    assert "died before it could tell why on n" in project.log


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
    assert "was killed for want of memory (resource mem_mb)" in project.log


def a_job(project: Project) -> str:
    wait_until(project.jobs, "a job")
    return next(iter(project.jobs()))


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
    assert f"{id_} is not known to the scheduler any more; log: " in project.log


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


COUNTS = "echo start >> runs; sleep 6; echo {wildcards.i} > {output}"


def test_a_killed_snakemake_started_again_waits_for_its_jobs(project):
    toy(project, 3, COUNTS)
    process = project.start()
    wait_until(lambda: project.read("runs").count("start") == 3, "running")
    process.kill()
    process.wait()
    assert project.run() == 0, project.log
    assert "of a Snakemake that is gone" in project.log
    assert project.read("runs").count("start") == 3
    assert len(project.jobs()) == 3
    assert [project.read(f"out/{i}") for i in range(3)] == ["0\n", "1\n", "2\n"]
    assert project.run() == 0
    assert "Nothing to be done" in project.log


def test_what_a_killed_snakemake_left_queued_is_waited_for(project, slurm):
    toy(project, 2, COUNTS)
    process = project.start("--set-resources", "toy:slurm_extra='--hold'")
    wait_until(lambda: list(project.jobs().values()) == ["PENDING"] * 2, "queued")
    process.kill()
    process.wait()
    again = project.start()
    project.wait_for("of a Snakemake that is gone", "log.txt")
    for id_ in project.jobs():
        slurm("scontrol", "release", id_)
    assert again.wait(timeout=60) == 0, project.log
    assert project.read("runs").count("start") == 2


def test_what_finished_while_snakemake_was_dead_is_picked_up(project):
    toy(project, 2, COUNTS)
    process = project.start()
    wait_until(lambda: project.read("runs").count("start") == 2, "running")
    process.kill()
    process.wait()
    wait_until(lambda: set(project.jobs().values()) == {"COMPLETED"}, "end")
    assert project.run() == 0, project.log
    assert project.read("runs").count("start") == 2


def test_jobs_left_behind_with_other_parameters_are_cancelled(project):
    toy(project, 2, COUNTS)
    process = project.start()
    wait_until(lambda: project.read("runs").count("start") == 2, "running")
    process.kill()
    process.wait()
    toy(project, 2, "echo other > {output}")
    assert project.run() == 0, project.log
    assert "is cancelled: it runs with other parameters" in project.log
    assert [project.read(f"out/{i}") for i in range(2)] == ["other\n"] * 2
    assert sorted(project.jobs().values()) == ["CANCELLED"] * 2 + ["COMPLETED"] * 2


def test_groups_travel_in_one_job(project):
    project.write(
        """
        rule all:
            input: expand("rated/{i}", i=range(4))

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
    assert len(project.jobs()) == 4
    for i in range(4):
        assert project.read(f"out/{i}") == project.read(f"rated/{i}")


@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_without_slurm(tmp_path, cluster):
    project = Project(tmp_path)
    toy(project, 3, "echo ${{CUDA_VISIBLE_DEVICES:-unset}} > {output}")
    assert project.run("--submitit-cluster", cluster, "--jobs", "2") == 0, project.log
    expected = os.environ.get("CUDA_VISIBLE_DEVICES", "unset") + "\n"
    assert [project.read(f"out/{i}") for i in range(3)] == [expected] * 3


def test_a_killed_snakemake_started_again_waits_for_local_jobs(tmp_path):
    project = Project(tmp_path)
    toy(project, 2, COUNTS)
    process = project.start("--submitit-cluster", "local")
    wait_until(lambda: project.read("runs").count("start") == 2, "running")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert project.run("--submitit-cluster", "local") == 0, project.log
    assert project.read("runs").count("start") == 2


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


def test_an_unknown_cluster(tmp_path):
    project = Project(tmp_path)
    toy(project, 1, "touch {output}")
    assert project.run("--submitit-cluster", "abacus") == 1
    assert "--submitit-cluster: abacus: must be slurm, local, debug" in project.log


def test_no_slurm_here(tmp_path):
    project = Project(tmp_path)
    project.environment["PATH"] = "/usr/bin/nowhere"
    toy(project, 1, "touch {output}")
    assert project.run() == 1
    assert "--submitit-cluster: slurm: " in project.log
