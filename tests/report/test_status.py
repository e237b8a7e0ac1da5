"""The status of a study: trainings that run, are stopped, fail or end; and the time left."""

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers import TINY, cells, make_up_cells, with_values

from eqco import forkserver
from eqco.commands import steps
from eqco.commands.cli import app
from eqco.report import watch
from eqco.report.status import RECENT, Status, duration, read, time_left
from eqco.runtime.lock import hold
from eqco.store.archive import KEPT
from eqco.store.cells import PROGRESS
from eqco.store.history import HISTORY
from eqco.store.history import read as read_history
from eqco.study.grid import Grid
from eqco.study.load import load_study
from eqco.study.study import Study, config_hash

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
def start(study_file, digits, tmp_path, processes):
    """Start the training of a cell as the pipeline does, with its log and its state.

    ``cold``: the command is the process that trains.
    """

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
        processes.append(process)
        return process

    return run


def of(study: Study, results: Path) -> dict[str, Status]:
    return {cell.path: cell for cell in read(Grid(study), results)}


def wait_for(study: Study, results: Path, path: str, detail: str) -> Status:
    for _ in range(1200):
        cell = of(study, results)[path]
        if cell.state == "running" and detail in cell.detail:
            return cell
        time.sleep(0.05)
    raise AssertionError(cell)


def write_progress(results: Path, path: str, host: str, epoch: int = 250) -> Path:
    """Write what a training of 1000 epochs writes after one of them, 100 s after its start."""
    state = results / "state" / path
    state.mkdir(parents=True, exist_ok=True)
    progress = {"epoch": epoch, "epochs": 1000, "images_per_s": 1234.5, "seconds": 100.0}
    (state / PROGRESS).write_text(json.dumps({**progress, "host": host}))
    return state


def test_a_training_runs_is_stopped_resumes_and_is_killed(study, start, tmp_path):
    assert {cell.state for cell in of(study, tmp_path).values()} == {"waiting"}
    process = start(FIRST)
    wait_for(study, tmp_path, FIRST, "images/s")
    assert [cell.state for cell in of(study, tmp_path).values()] == ["running", *["waiting"] * 3]
    while not list(tmp_path.rglob("step-*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    stopped = of(study, tmp_path)[FIRST]
    assert (stopped.state, stopped.detail) == ("waiting", "resumes from a checkpoint")
    assert stopped.remaining_s > 0
    process = start(FIRST, cold=True)
    wait_for(study, tmp_path, FIRST, "images/s")
    process.kill()
    process.wait()
    assert of(study, tmp_path)[FIRST].state == "waiting"


def test_a_held_lock_is_a_running_training(study, tmp_path):
    state = write_progress(tmp_path, FIRST, socket.gethostname())
    assert of(study, tmp_path)[FIRST].state == "waiting"  # without a checkpoint: from the beginning
    with hold(state / "lock", wait=False):
        running = of(study, tmp_path)[FIRST]
        assert running == Status(FIRST, "running", "epoch 250 of 1000, 1,234 images/s", 300)
        write_progress(tmp_path, FIRST, socket.gethostname(), epoch=0)
        assert of(study, tmp_path)[FIRST] == Status(FIRST, "running", "first epoch", None)


def test_a_training_on_another_machine_runs_while_its_files_are_recent(study, tmp_path):
    state = write_progress(tmp_path, FIRST, "another-machine")
    assert of(study, tmp_path)[FIRST].state == "running"
    old = time.time() - RECENT - 1
    os.utime(state / PROGRESS, (old, old))
    assert of(study, tmp_path)[FIRST].state == "waiting"
    # within a long epoch its checkpoints are recent
    checkpoints = state / config_hash(study.resolve(cells(study)[FIRST]))
    checkpoints.mkdir()
    (checkpoints / "step-1").touch()
    assert of(study, tmp_path)[FIRST].state == "running"
    os.utime(checkpoints / "step-1", (old, old))
    assert of(study, tmp_path)[FIRST] == Status(FIRST, "waiting", "resumes from a checkpoint", 300)
    write_progress(tmp_path, FIRST, "another-machine")
    log = tmp_path / "cells" / FIRST / "pretrain.log"
    log.parent.mkdir(parents=True)
    log.write_text("eqco: data/digits: is gone\n")
    assert of(study, tmp_path)[FIRST] == Status(FIRST, "failed", "data/digits: is gone")


def test_an_error_has_failed_until_it_runs_again(study, start, tmp_path):
    assert start(FIRST, "--expect", "another").wait() == 1
    failed = of(study, tmp_path)[FIRST]
    assert failed.state == "failed"
    assert failed.detail.endswith("start Snakemake again")
    log = tmp_path / "cells" / SECOND / "pretrain.log"
    log.parent.mkdir(parents=True)
    log.write_text("Traceback (most recent call last):\n  ...\nRuntimeError: out of memory\n")
    assert of(study, tmp_path)[SECOND].detail == "RuntimeError: out of memory"


def test_done_failed_and_the_time_left_are_those_of_the_results(study, start, tmp_path):
    make_up_cells(study, tmp_path)
    whole = (tmp_path / KEPT).read_text().splitlines()
    assert [cell.state for cell in of(study, tmp_path).values()] == ["done"] * 4
    assert time_left(read(Grid(study), tmp_path)) == "nothing left"
    two = [line.replace('"seconds": ', '"seconds": 1') for line in whole[:2]]
    diverged = whole[2].replace('"failed": null', '"failed": "the loss is not finite"')
    (tmp_path / KEPT).write_text("\n".join([*two, diverged]))
    statuses = of(study, tmp_path)
    assert statuses[THIRD] == Status(THIRD, "failed", "the loss is not finite")
    assert statuses[FOURTH].state == "waiting"
    assert 1000 < statuses[FOURTH].remaining_s < 1e5  # the mean of the two


def test_an_evaluation_runs_while_its_log_is_new(study_file, digits, tmp_path):
    values = with_values(yaml.safe_load(study_file.read_text()), {"pretrain.epochs": 1})
    study_file.write_text(yaml.safe_dump(values))
    folder = tmp_path / "cells" / FIRST
    steps.pretrain(study_file, FIRST, digits, folder)
    study = load_study(study_file)
    assert of(study, tmp_path)[FIRST].detail == "trained, not evaluated"
    (folder / "linear.log").touch()
    assert of(study, tmp_path)[FIRST] == Status(FIRST, "running", "evaluation")
    os.utime(folder / "linear.log", (0, 0))
    assert of(study, tmp_path)[FIRST].state == "running"  # its probe may have written the progress
    os.utime(folder / "state" / PROGRESS, (0, 0))
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
    statuses = [Status(str(i), state, "", left) for i, (state, left) in enumerate(cells_left)]
    assert time_left(statuses).startswith(expected)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(45, "45 s"), (720, "12 min"), (190_800, "53.0 h")]
)
def test_durations(seconds, expected):
    assert duration(seconds) == expected


def watched(monkeypatch, in_between: Callable[[int], None], command: str, *arguments: Path) -> None:
    """Run a command with --watch; ``in_between`` is called with 1, 2, … in the place of a pause."""
    pauses = itertools.count(1)
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: in_between(next(pauses)))
    app([command, *map(str, arguments), "--watch"], standalone_mode=False)


def test_the_page_shows_a_training_that_runs(study_file, start, tmp_path, monkeypatch):
    """Its curves so far, and of a cell that has not begun nothing."""
    history = tmp_path / "state" / FIRST / Grid(load_study(study_file)).cells[FIRST].hash / HISTORY
    pages = []

    def in_between(pause: int) -> None:
        pages.append((tmp_path / "report.html").read_text())
        if pause == 1:
            start(FIRST)
        while pause == 1 and len(read_history(history)) < 3:
            sleep(0.05)
        if pause == 2:
            raise KeyboardInterrupt

    sleep = time.sleep
    watched(monkeypatch, in_between, "report", study_file, Path("--results"), tmp_path)
    before, during = (re.findall(r"(\d+) of 1000 epochs trained", page) for page in pages)
    assert (len(before), len(during)) == (0, 1)
    _, _, block = pages[1].partition('id="histories">')
    trained, waiting = json.loads(block.partition("</script>")[0])["0"]  # seeds of the first arm
    losses = [entry["loss"] for entry in read_history(history)][: int(during[0])]
    assert trained["loss"] == pytest.approx(losses, rel=1e-3)
    assert waiting["loss"] == []


def test_a_watched_status_ends_with_the_last_cell(study_file, study, tmp_path, monkeypatch, capsys):
    def in_between(pause: int) -> None:
        if pause == 3:
            make_up_cells(study, tmp_path)

    watched(monkeypatch, in_between, "status", study_file, Path("--results"), tmp_path)
    assert (
        "4 of 4 cells done, 0 running, 0 failed, 0 waiting\nnothing left" in capsys.readouterr().out
    )


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
