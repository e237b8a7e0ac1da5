"""The grid of a study: its cells with their paths, configurations and hashes, computed once."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from eqco.errors import InputError
from eqco.study.cell import Cell
from eqco.study.expansion import axes
from eqco.study.study import Study, config_hash


@dataclass(frozen=True)
class GridCell:
    """A cell with its place in the grid, and everything that its pretraining depends on."""

    path: str  # method~simo/negatives~16/margin~eqco/seed~0
    cell: Cell
    config: dict[str, Any]  # the study resolved for this cell
    hash: str  # 16 hex digits of the configuration


class Grid:
    """Every cell of a study, by its path and in the order of the study file.

    Args:
        study: the study.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.axes = axes(study)

    @cached_property
    def cells(self) -> dict[str, GridCell]:
        """The cells by path, e.g. ``method~simo/negatives~16/margin~eqco/seed~0``."""
        by_path = {}
        for _, path, cell in self.study.places:
            config = self.study.resolve(cell)
            by_path[path] = GridCell(path, cell, config, config_hash(config))
        return by_path

    def only(self, paths: Iterable[str]) -> "Grid":
        """The grid with these of its cells alone, in its own order."""
        chosen, part = set(paths), Grid(self.study)
        part.cells = {path: one for path, one in self.cells.items() if path in chosen}
        return part

    def find(self, path: str, source: str) -> GridCell:
        """The cell at a path.

        Args:
            path: the cell's.
            source: the study file's name, for the message.

        Raises:
            InputError: the grid has no cell there.
        """
        if path not in self.cells:
            first = next(iter(self.cells))
            raise InputError(f"{source}: no cell {path!r} in its grid; the first is {first!r}")
        return self.cells[path]
