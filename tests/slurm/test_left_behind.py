"""Jobs that a killed Snakemake left behind: whose word the next one takes, and for what."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from cluster import wait_until
from project import Project, toy

LOCAL = ("--submitit-cluster", "local")


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Project]:
    """Without SLURM: jobs are processes of this machine."""
    project = Project(tmp_path)
    yield project
    project.end()


def left_behind(project: Project, *options: str) -> str:
    """Start Snakemake and kill it when its one job has written ``started``; the job's id."""
    process = project.start(*LOCAL, *options)
    wait_until(lambda: (project.folder / "started").exists(), "started")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (record,) = (project.folder / ".snakemake/submitit").glob("*.json")
    return record.stem


def kill_job(id_: str) -> None:
    """Kill a job without a word, as a lost node does."""
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
    [("killed", "died without an error message"), ("failing", "failed with exit code 1")],
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


HOLD = "echo start >> runs; touch started; while ! test -e go; do sleep 0.1; done"
RULE = """
    class Thing: pass

    rule all:
        input: "in"
        output: "out"
        {how}
    """
SHELL = 'params: 1\n        envmodules: "tool/1"\n        shell: "sh hold.sh; cp {input} {output}"'
SCRIPT = 'script: "make.py"'
RUN = 'run: shell("sh hold.sh"); shell("cp {input} {output}")'
OBJECT = SHELL.replace("params: 1", "params: [Thing()]")
MAKE = "import os\nos.system('sh hold.sh; cp in out')\n"
BY_TIME = ("--max-checksum-file-size", "0")


@pytest.fixture
def making(local: Project) -> Project:
    """One job that makes ``out`` of ``in`` and waits for ``go``; environment modules do nothing."""
    (local.folder / "hold.sh").write_text(HOLD)
    (local.folder / "make.py").write_text(MAKE)
    (local.folder / "in").write_text("1\n")
    (local.folder / "module").write_text("#!/bin/sh\n")
    (local.folder / "module").chmod(0o755)
    local.environment["PATH"] = f"{local.folder}:{os.environ['PATH']}"
    return local


def starts_after(project: Project, how: str, name: str, old: str, new: str, *options: str) -> int:
    """How often the job has been started when a change, and a second Snakemake, have come."""
    project.write(RULE.replace("{how}", how))
    left_behind(project, *options)
    file = project.folder / name
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))  # at another time in any case
    process = project.start(*LOCAL, *options)
    project.wait_for("of a Snakemake that is gone, is cancelled|waits for", "log.txt")
    (project.folder / "go").touch()
    assert process.wait(timeout=60) == 0, project.log
    assert project.read("out") == project.read("in")
    return project.read("runs").count("start")


@pytest.mark.parametrize(
    ("how", "name", "old", "new", "options"),
    [
        pytest.param(SHELL, "in", "1", "2", (), id="content of an input"),
        pytest.param(SHELL, "in", "1", "1", BY_TIME, id="time of an input"),
        pytest.param(SCRIPT, "make.py", "import", "# other\nimport", (), id="script"),
        pytest.param(RUN, "Snakefile", "run: ", 'run: shell("true"); ', (), id="run"),
        pytest.param(SHELL, "Snakefile", "params: 1", "params: 2", (), id="params"),
        pytest.param(
            SHELL, "Snakefile", "tool/1", "tool/2", ("--sdm", "env-modules"), id="modules"
        ),
    ],
)
def test_what_makes_something_else_by_now_is_cancelled(making, how, name, old, new, options):
    assert starts_after(making, how, name, old, new, *options) == 2
    assert "is cancelled: it runs with other parameters, code, software or inputs" in making.log


@pytest.mark.parametrize(
    ("how", "name"),
    [
        pytest.param(SHELL, "in", id="input"),
        pytest.param(SCRIPT, "make.py", id="script"),
        pytest.param(OBJECT, "Snakefile", id="object"),
    ],
)
def test_what_was_only_written_again_is_no_change(making, how, name):
    assert starts_after(making, how, name, "", "") == 1


def test_what_was_dead_before_the_scheduler_answered_is_submitted_again(project, slurm):
    """It is no failure of this run: there are no retries here."""
    project.write(HALF)
    process = project.start()
    wait_until(lambda: (project.folder / "started").exists(), "started")
    process.kill()
    process.wait()
    (id_,) = project.jobs()
    slurm("scancel", id_)
    wait_until(lambda: project.jobs()[id_] == "CANCELLED", "cancelled")
    (project.folder / "go").write_text("well")
    slurm.stop("slurmctld")
    again = project.start()
    try:
        project.wait_for(f"waits for {id_}, of a Snakemake that is gone", "log.txt")
    finally:
        slurm.start_slurmctld()
    assert again.wait(timeout=120) == 0, project.log
    assert project.read("out") == "whole\n"


COUNTS = "echo start >> runs; sleep 6; echo {wildcards.i} > {output}"


def killed_while_running(project: Project, count: int, *options: str) -> None:
    """Start Snakemake and kill it when all its jobs run."""
    toy(project, count, COUNTS)
    process = project.start(*options)
    wait_until(lambda: project.read("runs").count("start") == count, "running")
    process.kill()
    process.wait()


def test_a_killed_snakemake_started_again_waits_for_its_jobs(project):
    killed_while_running(project, 3)
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
    killed_while_running(project, 2)
    wait_until(lambda: set(project.jobs().values()) == {"COMPLETED"}, "end")
    assert project.run() == 0, project.log
    assert project.read("runs").count("start") == 2


def test_jobs_left_behind_with_other_parameters_are_cancelled(project):
    killed_while_running(project, 2)
    toy(project, 2, "echo other > {output}")
    assert project.run() == 0, project.log
    assert "is cancelled: it runs with other parameters" in project.log
    assert [project.read(f"out/{i}") for i in range(2)] == ["other\n"] * 2
    assert sorted(project.jobs().values()) == ["CANCELLED"] * 2 + ["COMPLETED"] * 2


def test_a_killed_snakemake_started_again_waits_for_local_jobs(tmp_path):
    project = Project(tmp_path)
    killed_while_running(project, 2, *LOCAL)
    assert project.run(*LOCAL) == 0, project.log
    assert project.read("runs").count("start") == 2
