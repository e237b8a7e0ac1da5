"""Where a study stands, from its files alone: as well on a login node while jobs run elsewhere."""

import re
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eqco.errors import InputError
from eqco.runtime.lock import is_held, owner_is_here
from eqco.store.archive import finished
from eqco.store.cells import EVALUATIONS, SUMMARY, read_json
from eqco.study.grid import cells, hashes
from eqco.study.study import Study

RECENT = 600  # seconds: twice the time between two checkpoints
EPOCH = re.compile(r"^epoch (\d+)/\d+ .* ([\d,]+) images/s$", re.M)  # of pretrain.log
# what a log may end with, of a process that did not fail
GOES_ON = re.compile(r"goes on from there$|an older one is used$|: waiting for process ")


@dataclass(frozen=True)
class Status:
    """Where a cell stands: its path, its state, what is to be told of it, its seconds to go.

    ``left`` is of the training alone, and None where nothing tells.
    """

    path: str
    state: Literal["done", "running", "failed", "waiting"]
    told: str = ""
    left: float | None = 0.0


def status(study: Study, results: Path, source: str) -> list[Status]:
    """Every cell of the grid, in its order.

    A cell is done, or has failed, by its results. Else it has failed when its log ends in an error.
    It is training when the lock on its state is held; ``flock`` tells so of a process on this
    machine, and of one elsewhere where the file system carries it. Where it may not, of an owner on
    another machine, and of evaluations, which hold no lock, a file that was written in the last ten
    minutes tells. All others wait: also those that were stopped, and go on from a checkpoint.

    Args:
        study: the study.
        results: its folder, which holds ``cells/`` and ``state/``.
        source: the study file's name, for messages.

    Raises:
        InputError: when a result is damaged, or the grid names a cell twice.
    """
    grid = cells(study, source)
    configs = hashes(study, grid)
    done = finished(configs, study.evaluate, results)
    seconds: dict[str, list[float]] = {}  # of the trainings of each method
    for path, files in done.items():
        if not files[SUMMARY]["failed"]:
            seconds.setdefault(grid[path].method, []).append(files[SUMMARY]["seconds"])
    every = [value for values in seconds.values() for value in values]
    found = []
    for path, cell in grid.items():
        if path in done:
            reason = done[path][SUMMARY]["failed"]
            found.append(Status(path, "failed", reason) if reason else Status(path, "done"))
        else:
            known = seconds.get(cell.method, every)
            whole = statistics.mean(known) if known else None
            found.append(_unfinished(path, results, configs[path], study.pretrain.epochs, whole))
    return found


def _unfinished(path: str, results: Path, config: str, epochs: int, whole: float | None) -> Status:
    """A cell without all results, where a training takes ``whole`` seconds, as far as is known."""
    folder = results / "cells" / path
    if _is_trained(folder, config):
        logs = [(folder / name).with_suffix(".log") for name in EVALUATIONS]
        begun = [log for log in logs if log.exists() and not log.with_suffix(".json").exists()]
        for log in begun:
            if error := _error(log.read_text(errors="replace")):
                return Status(path, "failed", error)
        if _is_recent(begun):
            return Status(path, "running", "rated")
        return Status(path, "waiting", "trained, not rated")
    log = folder / "pretrain.log"
    text = log.read_text(errors="replace") if log.exists() else ""
    # the second is where a training by hand has its state
    state = next((s for s in (results / "state" / path, folder / "state") if s.exists()), None)
    saved = list((state / config).glob("step-*")) if state else []
    lock = state / "lock" if state else None
    if lock and lock.exists():
        elsewhere = not owner_is_here(lock) and not GOES_ON.search(text.strip())
        if is_held(lock) or (elsewhere and not _error(text) and _is_recent([log, lock, *saved])):
            return _training(path, text, log, lock, epochs, whole)
    if error := _error(text):
        return Status(path, "failed", error)
    return Status(path, "waiting", "goes on from a checkpoint" if saved else "", whole)


def _training(
    path: str, text: str, log: Path, lock: Path, epochs: int, whole: float | None
) -> Status:
    lines = EPOCH.findall(text)
    if not lines:
        return Status(path, "running", "no epoch yet", whole)
    epoch, speed = int(lines[-1][0]), lines[-1][1]
    if whole is None:  # by its own epochs, since it took the lock
        whole = (log.stat().st_mtime - lock.stat().st_mtime) / len(lines) * epochs
    told = f"epoch {epoch} of {epochs}, {speed} images/s"
    return Status(path, "running", told, whole * (1 - epoch / epochs))


def _is_trained(folder: Path, config: str) -> bool:
    try:
        return read_json(folder / SUMMARY).get("config_hash") == config
    except InputError:
        return False


def _error(log: str) -> str:
    """What a log says of an error that ended its process; nothing where there was none."""
    last = log.strip().rpartition("\n")[2]
    told = last.startswith("eqco: ") or "Traceback (most recent call last)" in log
    return last.removeprefix("eqco: ") if told and not GOES_ON.search(last) else ""


def _is_recent(paths: Iterable[Path]) -> bool:
    return any(path.exists() and time.time() - path.stat().st_mtime < RECENT for path in paths)


def time_left(found: list[Status]) -> str:
    """About how long the trainings that are left will take, if as many run at a time as now."""
    running = sum(cell.state == "running" for cell in found)
    left = [cell.left for cell in found if cell.state in ("running", "waiting")]
    if not left:
        return "nothing left"
    known: list[Any] = [seconds for seconds in left if seconds is not None]
    if not known:
        return "time left: not known before the first epoch"
    # where some are not known, they are as the others
    seconds = sum(known) / len(known) * len(left) / max(running, 1)
    several = f"{running} cells at a time" if running > 1 else "one cell at a time"
    return f"about {duration(seconds)} of training left, {several}"


def duration(seconds: float) -> str:
    """``45 s``, ``12 min`` or ``53.0 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
