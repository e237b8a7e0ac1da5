"""Where a study stands: real trainings that run, end, are stopped, fail; and the time left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from helpers import TINY, make_up_cells, with_values

from eqco import forkserver
from eqco.commands import cli
from eqco.report.status import RECENT, Status, duration, status, time_left
from eqco.store.archive import KEPT
from eqco.study.study import Study, load_study

pytestmark = pytest.mark.usefixtures("fork_server")
GRID = {"methods": ["simo"], "negatives": [1, 16], "margins": [0], "seeds": [0, 1]}
FIRST, SECOND, THIRD, FOURTH = (
    f"method~simo/negatives~{k}/margin~0/seed~{seed}" for k in (1, 16) for seed in (0, 1)
)


@pytest.fixture
def study_file(tmp_path) -> Path:
    """A study of four cells, of which nothing has run; one trains for a while."""
    values = yaml.safe_load(TINY.read_text())
    file = tmp_path / "tiny.yaml"
    changes = {"grid": [GRID], "pretrain.epochs": 1000}
    file.write_text(yaml.safe_dump(with_values(values, changes)))
    return file


@pytest.fixture
def study(study_file) -> Study:
    return load_study(study_file)


@pytest.fixture
def start(study_file, digits, tmp_path):
    """Start the training of a cell as the pipeline does, with its log and its state.

    ``cold``: the command is the process that trains.
    """
    started = []

    def run(cell: str, *options: str, cold: bool = False) -> subprocess.Popen[bytes]:
        folder = tmp_path / "cells" / cell
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "eqco", "pretrain", study_file, "--cell", cell]
        places = ["--data", digits, "--out", folder, "--state", tmp_path / "state" / cell]
        often = ["--checkpoint-seconds", "0.1", "--threads", "1"]
        environment = dict(os.environ)
        if cold:
            del environment[forkserver.VARIABLE]
        with (folder / "pretrain.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, *places, *often, *options],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


def of(study: Study, results: Path) -> dict[str, Status]:
    return {cell.path: cell for cell in status(study, results, "tiny.yaml")}


def wait_for(study: Study, results: Path, path: str, told: str) -> Status:
    for _ in range(1200):
        cell = of(study, results)[path]
        if told in cell.told:
            return cell
        time.sleep(0.05)
    raise AssertionError(cell)


def test_a_training_runs_is_stopped_goes_on_and_is_killed(study, start, tmp_path):
    assert {cell.state for cell in of(study, tmp_path).values()} == {"waiting"}
    process = start(FIRST)
    running = wait_for(study, tmp_path, FIRST, "epoch ")
    wait_for(study, tmp_path, FIRST, "images/s")
    assert running.state == "running"
    assert [cell.state for cell in of(study, tmp_path).values()] == ["running", *["waiting"] * 3]
    os.utime(tmp_path / "cells" / FIRST / "pretrain.log", (0, 0))  # the lock tells, not the time
    assert of(study, tmp_path)[FIRST].state == "running"
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    stopped = of(study, tmp_path)[FIRST]
    assert (stopped.state, stopped.told) == ("waiting", "goes on from a checkpoint")
    process = start(FIRST, cold=True)
    wait_for(study, tmp_path, FIRST, "images/s")
    process.kill()
    process.wait()
    assert of(study, tmp_path)[FIRST].state == "waiting"
    # of an owner elsewhere, whose lock may not be seen here, what it wrote tells
    lock = tmp_path / "state" / FIRST / "lock"
    taken = lock.stat().st_mtime
    lock.write_text("process 1 on another-machine\n")
    os.utime(lock, (taken, taken))
    running = of(study, tmp_path)[FIRST]
    assert running.state == "running"
    assert running.left > 0
    old = time.time() - RECENT - 1
    for path in [*tmp_path.rglob("step-*"), *tmp_path.rglob("lock"), *tmp_path.rglob("*.log")]:
        os.utime(path, (old, old))
    assert of(study, tmp_path)[FIRST].state == "waiting"


def test_an_error_has_failed_until_it_runs_again(study, start, tmp_path):
    assert start(FIRST, "--expect", "another").wait() == 1
    failed = of(study, tmp_path)[FIRST]
    assert failed.state == "failed"
    assert failed.told.endswith("start Snakemake again")
    log = tmp_path / "cells" / SECOND / "pretrain.log"
    log.parent.mkdir(parents=True)
    log.write_text("Traceback (most recent call last):\n  ...\nRuntimeError: out of memory\n")
    assert of(study, tmp_path)[SECOND].told == "RuntimeError: out of memory"


def test_done_failed_and_the_time_left_are_those_of_the_results(study, start, tmp_path):
    make_up_cells(study, tmp_path)
    whole = (tmp_path / KEPT).read_text().splitlines()
    assert [cell.state for cell in of(study, tmp_path).values()] == ["done"] * 4
    assert time_left(status(study, tmp_path, "")) == "nothing left"
    two = [line.replace('"seconds": ', '"seconds": 1') for line in whole[:2]]
    diverged = whole[2].replace('"failed": null', '"failed": "the loss is not finite"')
    (tmp_path / KEPT).write_text("\n".join([*two, diverged]))
    found = of(study, tmp_path)
    assert found[THIRD] == Status(THIRD, "failed", "the loss is not finite")
    assert found[FOURTH].state == "waiting"
    assert 1000 < found[FOURTH].left < 1e5  # the mean of the two


def test_an_evaluation_runs_while_its_log_is_new(study_file, digits, tmp_path):
    values = with_values(yaml.safe_load(study_file.read_text()), {"pretrain.epochs": 1})
    study_file.write_text(yaml.safe_dump(values))
    folder = tmp_path / "cells" / FIRST
    cli.pretrain(study_file, FIRST, digits, folder)
    study = load_study(study_file)
    assert of(study, tmp_path)[FIRST].told == "trained, not rated"
    (folder / "linear.log").touch()
    assert of(study, tmp_path)[FIRST] == Status(FIRST, "running", "rated")
    os.utime(folder / "linear.log", (0, 0))
    assert of(study, tmp_path)[FIRST].state == "waiting"
    (folder / "linear.log").write_text("eqco: data/digits: is gone\n")
    assert of(study, tmp_path)[FIRST] == Status(FIRST, "failed", "data/digits: is gone")


@pytest.mark.parametrize(
    ("cells_left", "expected"),
    [
        ([("waiting", 60.0)] * 4, "about 4 min of training left, one cell at a time"),
        ([("running", 30.0)] * 2 + [("waiting", 60.0)], "about 60 s of training left, 2 cells"),
        ([("running", 40.0), ("waiting", None)], "about 80 s of training left, one cell"),
        ([("waiting", None)], "time left: not known before the first epoch"),
        ([("done", 0.0), ("failed", 0.0)], "nothing left"),
    ],
)
def test_the_time_left_is_shared_by_the_cells_that_run(cells_left, expected):
    found = [Status(str(i), state, "", left) for i, (state, left) in enumerate(cells_left)]
    assert time_left(found).startswith(expected)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(45, "45 s"), (720, "12 min"), (190_800, "53.0 h")]
)
def test_durations(seconds, expected):
    assert duration(seconds) == expected


def test_the_command_prints_plain_text_without_torch_or_pandas(study_file, study, tmp_path):
    make_up_cells(study, tmp_path)
    lines = (tmp_path / KEPT).read_text().splitlines()
    diverged = lines[0].replace('"failed": null', '"failed": "not finite"')
    (tmp_path / KEPT).write_text("\n".join([diverged, *lines[1:3]]))
    code = (
        "import sys; from eqco.commands.cli import app\n"
        f"app(['status', {str(study_file)!r}, '--results', {str(tmp_path)!r}],"
        " standalone_mode=False)\n"
        "sys.exit(bool({'torch', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    failed, counts, left = done.stdout.splitlines()
    assert failed == f"failed   {FIRST}  not finite"
    assert counts == "2 of 4 cells done, 0 running, 1 failed, 1 waiting"
    assert left.endswith("of training left, one cell at a time")
