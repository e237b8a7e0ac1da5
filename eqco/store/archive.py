"""The archive of a study's cells: one small file that stands in for their folders.

A table needs the summary and the evaluations of a cell, not its encoder. ``cells.jsonl`` in the
study's folder holds them, one line per cell. A clone of the repository makes the tables from it,
without training.
"""

import json
from pathlib import Path
from typing import Any

from pydantic_core import from_json  # twice as fast as json

from eqco.errors import InputError
from eqco.runtime.files import write
from eqco.store.cells import (
    EVALUATIONS,
    SUMMARY,
    TRANSFER,
    TUNED,
    Files,
    files_of,
    mismatch,
    read_files,
)
from eqco.study.grid import Grid

KEPT = "cells.jsonl"


def keep(grid: Grid, results: Path) -> int:
    """Write the archive of the finished cells; returns their number. Raises InputError."""
    # keys stay in their order, in which provenance.json is written
    lines = [
        json.dumps({"cell": path, **files}, separators=(",", ":")) + "\n"
        for path, files in finished(grid, results).items()
    ]
    write(results / KEPT, "".join(lines))
    return len(lines)


def finished(grid: Grid, results: Path) -> dict[str, Files]:
    """The files of every cell that is finished with the study's parameters, by path.

    Args:
        grid: the study's grid.
        results: the study's folder, with ``cells/`` or an archive.

    Raises:
        InputError: if a file is damaged.
    """
    found = stand_ins(grid, results)
    for path, cell in grid.cells.items():
        folder = results / "cells" / path
        if all((folder / name).exists() for name in files_of(grid.study.evaluate)):
            files = read_files(folder, grid.study.evaluate)
            if not mismatch(files, cell.hash, grid.study.evaluate):
                found[path] = files
    return {path: found[path] for path in grid.cells if path in found}


def read_kept(results: Path) -> dict[str, Files]:
    """The files of every archived cell by path, empty without an archive. Raises InputError."""
    path = results / KEPT
    kept: dict[str, Files] = {}
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    for number, line in enumerate(lines, start=1):
        try:
            files: dict[str, Any] = from_json(line)
            optional = {TUNED, TRANSFER} - files.keys()
            names = [name for name in (SUMMARY, *EVALUATIONS) if name not in optional]
            kept[files.pop("cell")] = {name: dict(files[name]) for name in names}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(
                f"{path}: line {number}: is damaged; bring the file back from git, or delete it, "
                "and the cells are run again"
            ) from None
    return kept


def stand_ins(grid: Grid, results: Path) -> dict[str, Files]:
    """The archived files of the cells that have no folder, by path: these cells need not run.

    A cell whose parameters or evaluation settings have changed is left out. Arguments as for
    ``finished``. Raises InputError.
    """
    if not (kept := read_kept(results)):
        return {}
    return {
        path: kept[path]
        for path, cell in grid.cells.items()
        if path in kept
        and not (results / "cells" / path).exists()
        and not mismatch(kept[path], cell.hash, grid.study.evaluate)
    }
