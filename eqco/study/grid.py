"""The grid of a study: its cells with their paths, configurations and hashes."""

from collections.abc import Iterable
from dataclasses import dataclass, field
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
    study: Study = field(compare=False, repr=False)

    # each of a cluster's jobs has the grid, and needs these of one cell

    @cached_property
    def config(self) -> dict[str, Any]:
        """The study resolved for this cell."""
        return self.study.resolve(self.cell)

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits of the configuration."""
        return config_hash(self.config)


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
        return {path: GridCell(path, cell, self.study) for _, path, cell in self.study.places}

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
