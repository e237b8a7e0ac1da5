"""Jobs that a killed Snakemake left behind: whose word the next one takes, and for what."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from cluster import wait_until
from project import Project

LOCAL = ("--submitit-cluster", "local")
GONE = "of a Snakemake that is gone"


class LeftBehind(NamedTuple):
    """A project whose first Snakemake was killed and whose second has ended.

    Attributes:
        ids: of the first one's jobs, by their outputs.
        code: of the second.
        log: of the second.
    """

    project: Project
    ids: dict[str, str]
    code: int
    log: str


def left_behind(project: Project, started: int, *options: str) -> dict[str, str]:
    """Start Snakemake and kill it when its jobs have begun: their ids by their outputs."""
    process = project.start(*options)
    wait_until(lambda: len(list(project.folder.glob("started-*"))) == started, "started")
    process.kill()
    process.wait()
    return project.submitted()


def starts(project: Project, name: str) -> int:
    return project.read(f"runs-{name}").count("start")


def kill_job(id_: str) -> None:
    """Kill a local job without a word, as a lost node does."""
    watcher = psutil.Process(int(id_))
    for process in [watcher, *watcher.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


# Jobs that die after the restart

HALF = """
    rule all:
        input: "killed", "failing", "retried"

    rule killed:
        output: "killed"
        shell: "sh half.sh {output}"

    rule failing:
        output: "failing"
        shell: "sh half.sh {output}"

    rule retried:
        output: "retried"
        retries: 1
        shell: "sh half.sh {output}"
    """
HALF_A_FILE = """set -e
echo start >> runs-$1
echo half > $1
touch started-$1
while ! test -e go-$1; do sleep 0.1; done
test $(cat go-$1) = well
echo whole > $1
"""


@pytest.fixture(scope="module")
def dying(projects) -> LeftBehind:
    project = projects()
    (project.folder / "half.sh").write_text(HALF_A_FILE)
    project.write(HALF)
    ids = left_behind(project, 3, *LOCAL)
    process = project.start(*LOCAL, "--keep-going")
    wait_until(lambda: project.log.count("waits for ") == 3, "three jobs")
    kill_job(ids["killed"])
    kill_job(ids["retried"])
    (project.folder / "go-failing").write_text("badly")
    wait_until(lambda: starts(project, "retried") == 2, "the second try")
    (project.folder / "go-retried").write_text("well")
    return LeftBehind(project, ids, process.wait(timeout=180), project.log)


@pytest.mark.parametrize(
    ("name", "message"),
    [("killed", "died without an error message"), ("failing", "failed with exit code 1")],
)
def test_what_died_after_the_restart_is_not_believed_for_its_outputs(dying, name, message):
    project, ids, code, log_of_all = dying
    assert code == 1
    log = project.job_log(ids[name])
    assert f"{ids[name]} {message}; log: {log}" in log_of_all
    assert f"rule {name}" in log.read_text()
    assert not (project.folder / name).exists()
    assert starts(project, name) == 1


def test_what_died_after_the_restart_is_tried_again_as_often_as_others(dying):
    project, ids, _, log = dying
    id_ = ids["retried"]
    assert project.read("retried") == "whole\n"
    assert starts(project, "retried") == 2
    assert log.count(f"{id_}, {GONE}") == 1
    assert project.job_log(id_).exists()


# Jobs of which the next Snakemake wants something else, or the same

RULE = """
rule {name}:
    input: "{name}.in"
    output: "{name}"
    {how}
"""
HOLD = "echo start >> runs-$1; touch started-$1; while ! test -e go; do sleep 0.1; done"
SHELL = 'params: 1\n    shell: "sh hold.sh {rule}; cp {input} {output}"'
MODULES = 'envmodules: "tool/1"\n    ' + SHELL
SCRIPT = 'script: "{name}.py"'
RUN = 'run: shell("sh hold.sh {rule}"); shell("cp {input} {output}")'
OBJECT = SHELL.replace("params: 1", "params: [Thing()]")
MAKE = "import os\nos.system('sh hold.sh {name}; cp {name}.in {name}')\n"
BYTES = 200  # of an input or script that counts by its content, at most
OTHER = {
    "content_of_an_input": (SHELL, ".in", "1", "2"),
    "time_of_an_input": (SHELL, ".in", "1", "1"),
    "script": (SCRIPT, ".py", "import", "# other\nimport"),
    "run": (RUN, "", "run: ", 'run: shell("true"); '),
    "params": (SHELL, "", "params: 1", "params: 2"),
    "modules": (MODULES, "", "tool/1", "tool/2"),
}
SAME = {
    "input_again": (SHELL, ".in", "", ""),
    "script_again": (SCRIPT, ".py", "", ""),
    "object_again": (OBJECT, "", "", ""),
}


def snakefile(changed: bool) -> str:
    rules = ["class Thing: pass\n", f"rule all:\n    input: {[*OTHER, *SAME]}\n"]
    for name, (how, suffix, old, new) in {**OTHER, **SAME}.items():
        rule = RULE.replace("{how}", how).replace("{name}", name)
        assert suffix or old in rule
        rules.append(rule.replace(old, new) if changed and old and not suffix else rule)
    return "\n".join(rules)


def write_again(file: Path, old: str, new: str) -> None:
    """A change, or none: at another time in any case."""
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


@pytest.fixture(scope="module")
def changed(projects) -> LeftBehind:
    """Jobs that wait for ``go``; modules do nothing."""
    project = projects()
    folder = project.folder
    (folder / "hold.sh").write_text(HOLD)
    (folder / "module").write_text("#!/bin/sh\n")
    (folder / "module").chmod(0o755)
    project.environment["PATH"] = f"{folder}:{os.environ['PATH']}"
    for name in (*OTHER, *SAME):
        (folder / f"{name}.in").write_text("1\n" * (BYTES if name == "time_of_an_input" else 1))
        (folder / f"{name}.py").write_text(MAKE.replace("{name}", name))
    project.write(snakefile(changed=False))
    options = (*LOCAL, "--sdm", "env-modules", "--max-checksum-file-size", str(BYTES))
    ids = left_behind(project, len(OTHER) + len(SAME), *options)
    for name, (_, suffix, old, new) in {**OTHER, **SAME}.items():
        if suffix:
            write_again(folder / f"{name}{suffix}", old, new)
    project.write(snakefile(changed=True))
    process = project.start(*options)
    wait_until(lambda: project.log.count("waits for ") == len(ids), "all jobs")
    (folder / "go").touch()
    return LeftBehind(project, ids, process.wait(timeout=120), project.log)


@pytest.mark.parametrize("name", OTHER)
def test_what_makes_something_else_by_now_is_cancelled(changed, name):
    project, ids, code, log = changed
    other = "it runs with other parameters, code, software or inputs"
    assert f"{ids[name]}, {GONE}, is cancelled: {other}" in log
    assert code == 0, log
    assert starts(project, name) == 2
    assert project.read(name) == project.read(f"{name}.in")


@pytest.mark.parametrize("name", SAME)
def test_what_was_only_written_again_is_no_change(changed, name):
    project, ids, code, log = changed
    assert f"waits for {ids[name]}, {GONE}" in log
    assert f"{ids[name]}, {GONE}, is cancelled" not in log
    assert code == 0, log
    assert starts(project, name) == 1
    assert project.read(name) == project.read(f"{name}.in")


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Project]:
    """Without SLURM: jobs are processes of this machine."""
    project = Project(tmp_path)
    yield project
    project.end()


def test_several_jobs_take_the_word_of_the_one_that_made_them(local):
    """A group whose first step is done is, for the next Snakemake, two jobs."""
    local.write(
        """
        rule all:
            input: "rated/0", "rated/1"

        rule train:
            output: "trained"
            group: "cell"
            shell: "echo start >> runs-all; touch {output}"

        rule rate:
            input: "trained"
            output: "rated/{i}"
            group: "cell"
            shell: "echo start >> runs-all; touch started-{wildcards.i}; "
                "while ! test -e go; do sleep 0.1; done; echo {wildcards.i} > {output}"
        """
    )
    left_behind(local, 2, *LOCAL)
    process = local.start(*LOCAL)
    wait_until(lambda: local.log.count("waits for ") == 2, "two jobs")
    (local.folder / "go").touch()
    assert process.wait(timeout=180) == 0, local.log
    assert starts(local, "all") == 3
    assert [local.read(f"rated/{i}") for i in range(2)] == ["0\n", "1\n"]


# Jobs of SLURM's

ON_SLURM = """
    rule all:
        input: "running-0", "running-1", "finished", "changed", "queued"

    rule running:
        output: "running-{i}"
        shell: "sh hold.sh {output}"

    rule finished:
        output: "finished"
        shell: "sh hold.sh {output}"

    rule changed:
        output: "changed"
        shell: "sh hold.sh {output}"

    rule queued:
        output: "queued"
        resources: slurm_extra="--hold"
        shell: "sh hold.sh {output}"
    """
HOLD_ON_SLURM = HOLD.replace("test -e go", "test -e go-$1") + "; echo made > $1\n"


@pytest.fixture(scope="module")
def on_slurm(slurm, projects) -> LeftBehind:
    project = projects(slurm)
    (project.folder / "hold.sh").write_text(HOLD_ON_SLURM)
    project.write(ON_SLURM)
    ids = left_behind(project, 4)
    assert project.jobs()[ids["queued"]] == "PENDING"
    (project.folder / "go-finished").touch()
    wait_until(lambda: project.jobs()[ids["finished"]] == "COMPLETED", "end of one")
    other = 'output: "changed"\n        shell: "sh hold.sh {output}'
    assert other in ON_SLURM
    project.write(ON_SLURM.replace(other, f"{other} other"))
    again = project.start()
    wait_until(lambda: project.log.count("waits for ") == 4, "four jobs")
    for name in ("running-0", "running-1", "changed", "queued"):
        (project.folder / f"go-{name}").touch()
    slurm("scontrol", "release", ids["queued"])
    return LeftBehind(project, ids, again.wait(timeout=120), project.log)


@pytest.mark.parametrize("name", ["running-0", "running-1", "queued"])
def test_what_a_killed_snakemake_left_running_or_queued_is_waited_for(on_slurm, name):
    project, ids, code, log = on_slurm
    assert code == 0, log
    assert f"waits for {ids[name]}, {GONE}" in log
    assert starts(project, name) == 1
    assert project.read(name) == "made\n"


def test_what_finished_while_snakemake_was_dead_is_picked_up(on_slurm):
    assert starts(on_slurm.project, "finished") == 1
    assert "rule finished:" not in on_slurm.log


def test_jobs_left_behind_with_other_parameters_are_cancelled(on_slurm):
    project, ids, _, log = on_slurm
    assert f"{ids['changed']}, {GONE}, is cancelled: it runs with other parameters" in log
    states = project.jobs()
    assert states.pop(ids["changed"]) == "CANCELLED"
    assert sorted(states.values()) == ["COMPLETED"] * 5
    assert starts(project, "changed") == 2


def test_then_nothing_is_left_to_be_done(on_slurm):
    project = on_slurm.project
    assert project.run() == 0
    assert "Nothing to be done" in project.log
