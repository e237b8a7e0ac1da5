"""The state of a study's cells, read from files alone: a login node shows jobs elsewhere too."""

import socket
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.text import Text

from eqco.errors import InputError
from eqco.runtime.lock import is_held
from eqco.store.archive import finished
from eqco.store.cells import EVALUATIONS, PROGRESS, SUMMARY, read_json, state_folder
from eqco.store.selection import needed
from eqco.study.grid import Grid

RECENT = 600  # seconds: twice the time between two checkpoints


@dataclass(frozen=True)
class Status:
    """The state of a cell.

    ``detail`` is the epoch and speed of a running cell, or the error of a failed one.
    ``remaining_s`` is the training time still to come, in seconds; None if unknown.
    """

    path: str
    state: Literal["done", "running", "failed", "waiting"]
    detail: str = ""
    remaining_s: float | None = 0.0


def read(grid: Grid, results: Path) -> list[Status]:
    """The status of every cell of the grid that has to run, as far as known, in its order.

    A cell is done, or has failed, if its results say so. A training runs if its lock is held. The
    lock of a process on another machine may not be visible here, so a training whose last progress
    came from another machine also runs if it wrote a file in the last ten minutes. An evaluation
    holds no lock: it runs if its log is that recent. A cell that does not run has failed if its log
    ends in an error. All others wait, interrupted ones included.

    Args:
        grid: the study's grid.
        results: the study's folder, which holds ``cells/`` and ``state/``.

    Raises:
        InputError: if a result is damaged.
    """
    done = finished(grid, results)
    seconds: dict[str, list[float]] = {}  # per training, by method
    for path, files in done.items():
        if not files[SUMMARY]["failed"]:
            seconds.setdefault(grid.cells[path].cell.method, []).append(files[SUMMARY]["seconds"])
    all_seconds = [value for values in seconds.values() for value in values]
    statuses = []
    for path, cell in needed(grid, results).cells.items():
        if path in done:
            reason = done[path][SUMMARY]["failed"]
            statuses.append(Status(path, "failed", reason) if reason else Status(path, "done"))
        else:
            alike = seconds.get(cell.cell.method, all_seconds)
            expected_s = statistics.mean(alike) if alike else None
            statuses.append(_unfinished(path, results, cell.hash, expected_s))
    return statuses


def _unfinished(path: str, results: Path, config: str, expected_s: float | None) -> Status:
    """The status of a cell without all results; a training takes ``expected_s`` seconds."""
    folder = results / "cells" / path
    state = state_folder(results, path)
    if _is_trained(folder, config):
        return _evaluation(path, folder, state / PROGRESS)
    progress = _progress(state / PROGRESS)
    checkpoints = list((state / config).glob("step-*"))
    error = _error(folder / "pretrain.log")
    elsewhere = progress.get("host", socket.gethostname()) != socket.gethostname()
    lock = state / "lock"
    held = lock.exists() and is_held(lock)
    if held or (elsewhere and not error and _is_recent([state / PROGRESS, *checkpoints])):
        return Status(path, "running", _epoch(progress), _remaining_s(progress, expected_s))
    if error:
        return Status(path, "failed", error)
    if checkpoints:
        remaining_s = _remaining_s(progress, expected_s)
        return Status(path, "waiting", "resumes from a checkpoint", remaining_s)
    return Status(path, "waiting", "", expected_s)


def _evaluation(path: str, folder: Path, progress: Path) -> Status:
    """The status of a trained cell whose evaluations are not finished."""
    logs = [(folder / name).with_suffix(".log") for name in EVALUATIONS]
    started = [log for log in logs if log.exists() and not log.with_suffix(".json").exists()]
    errors = [error for log in started if (error := _error(log))]
    if errors:
        return Status(path, "failed", errors[0])
    if started and _is_recent([*started, progress]):  # a probe on augmented views writes progress
        return Status(path, "running", "evaluation")
    return Status(path, "waiting", "trained, not evaluated")


def _is_trained(folder: Path, config: str) -> bool:
    try:
        return read_json(folder / SUMMARY).get("config_hash") == config
    except InputError:
        return False


def _progress(path: Path) -> dict[str, Any]:
    """The progress of a training; empty before it has started."""
    return read_json(path) if path.exists() else {}


def _epoch(progress: dict[str, Any]) -> str:
    if not progress.get("epoch"):
        return "first epoch"
    speed = f"{progress['images_per_s']:,.0f} images/s"
    return f"epoch {progress['epoch']} of {progress['epochs']}, {speed}"


def _remaining_s(progress: dict[str, Any], expected_s: float | None) -> float | None:
    """Seconds to the end of a training: by its own epochs if it has some, else by others."""
    if not progress.get("epoch"):
        return expected_s
    return progress["seconds"] * (progress["epochs"] / progress["epoch"] - 1)


def _error(log: Path) -> str:
    """The error that ended the process of a log; empty if there was none.

    Its last line is the only witness. ``eqco: `` begins errors alone, no other message.
    """
    text = log.read_text(errors="replace") if log.exists() else ""
    last = text.strip().rpartition("\n")[2]
    if last.startswith("eqco: ") or "Traceback (most recent call last)" in text:
        return last.removeprefix("eqco: ")
    return ""


def _is_recent(paths: Iterable[Path]) -> bool:
    return any(path.exists() and time.time() - path.stat().st_mtime < RECENT for path in paths)


def unfinished(statuses: list[Status]) -> bool:
    """Whether a cell runs or waits."""
    return any(cell.state in ("running", "waiting") for cell in statuses)


def shown(statuses: list[Status]) -> Text:
    """The cells that run or have failed, a line each, the number of all, and the time left."""
    styles = {"running": "cyan", "failed": "red"}
    lines = [
        Text(f"{cell.state:8} {cell.path}  {cell.detail}", style=styles[cell.state])
        for cell in statuses
        if cell.state in styles
    ]
    states = [cell.state for cell in statuses]
    counts = ", ".join(f"{states.count(s)} {s}" for s in ("running", "failed", "waiting"))
    lines.append(Text(f"{states.count('done')} of {len(statuses)} cells done, {counts}"))
    return Text("\n").join([*lines, Text(time_left(statuses))])


def time_left(statuses: list[Status]) -> str:
    """About how long the rest of the trainings takes if as many run at a time as now."""
    running = sum(cell.state == "running" for cell in statuses)
    remaining = [cell.remaining_s for cell in statuses if cell.state in ("running", "waiting")]
    if not remaining:
        return "nothing left"
    estimates = [seconds for seconds in remaining if seconds is not None]
    if not estimates:
        return "time left: not known before the first epoch"
    # a cell without an estimate counts as the mean of the others
    seconds = statistics.mean(estimates) * len(remaining) / max(running, 1)
    several = f"{running} cells at a time" if running > 1 else "one cell at a time"
    return f"about {duration(seconds)} of training left, {several}"


def duration(seconds: float) -> str:
    """``45 s``, ``12 min`` or ``53.0 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
