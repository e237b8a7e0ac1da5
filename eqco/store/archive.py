"""An archive of a study's finished cells: one small JSON Lines file, ``cells.jsonl``.

A table needs of a cell its summary and its evaluations, not its encoder. ``cells.jsonl`` in the
study's folder holds them, a line a cell, so that a clone of the repository makes the tables again
without training anything.
"""

import json
from pathlib import Path
from typing import Any

from eqco.errors import InputError
from eqco.runtime.files import write
from eqco.store.cells import FILES, Files, mismatch, read_files
from eqco.study.grid import Grid

KEPT = "cells.jsonl"


def keep(grid: Grid, results: Path) -> int:
    """Write the file, of the cells that are finished; returns how many. Raises InputError."""
    # no key sorted: provenance.json is written in their order
    lines = [
        json.dumps({"cell": path, **files}, separators=(",", ":")) + "\n"
        for path, files in finished(grid, results).items()
    ]
    write(results / KEPT, "".join(lines))
    return len(lines)


def finished(grid: Grid, results: Path) -> dict[str, Files]:
    """What the table reads of every cell that is finished with the study's parameters, by its path.

    Args:
        grid: the study's.
        results: its folder, which holds ``cells/``, or what was kept of it.

    Raises:
        InputError: when a file is damaged.
    """
    found = stand_ins(grid, results)
    for path, cell in grid.cells.items():
        folder = results / "cells" / path
        if all((folder / name).exists() for name in FILES):
            files = read_files(folder)
            if not mismatch(files, cell.hash, grid.study.evaluate):
                found[path] = files
    return {path: found[path] for path in grid.cells if path in found}


def read_kept(results: Path) -> dict[str, Files]:
    """The files of every kept cell by its path; none where there is no file. Raises InputError."""
    path = results / KEPT
    kept: dict[str, Files] = {}
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    for number, line in enumerate(lines, start=1):
        try:
            files: dict[str, Any] = json.loads(line)
            kept[files.pop("cell")] = {name: dict(files[name]) for name in FILES}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(
                f"{path}: line {number}: is damaged; bring the file back from git, or delete it, "
                "and the cells are run again"
            ) from None
    return kept


def stand_ins(grid: Grid, results: Path) -> dict[str, Files]:
    """What was kept of the cells that have no folder, by their paths: these need not run.

    Nothing stands in for a cell whose parameters, or settings of the evaluations, have changed.
    Arguments as for ``finished``. Raises InputError.
    """
    kept = read_kept(results)
    return {
        path: kept[path]
        for path, cell in grid.cells.items()
        if path in kept
        and not (results / "cells" / path).exists()
        and not mismatch(kept[path], cell.hash, grid.study.evaluate)
    }
