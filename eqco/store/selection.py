"""The selected value of each arm of a study, computed from its finished cells."""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from eqco.errors import InputError
from eqco.store.archive import stand_ins
from eqco.store.cells import read_cell
from eqco.study.grid import Grid
from eqco.study.selection import Arm, arms


@dataclass(frozen=True)
class Choice:
    """The value that is selected for an arm.

    Args:
        arm: the arm.
        scores: accuracies in percent by value, one per deciding seed, NaN of a failed cell; empty
            for an arm of one value.
        value: the selected one; None if deciding cells are not finished.
        missing: why there is no value; empty if there is one.
    """

    arm: Arm
    scores: dict[str, list[float]]
    value: str | None
    missing: str = ""

    @property
    def means(self) -> dict[str, float]:
        """The mean accuracy by value, NaN where a seed failed."""
        return {value: statistics.fmean(scores) for value, scores in self.scores.items()}

    @property
    def at_edge(self) -> bool:
        """Whether the value is the least or the largest that was tried: a better may lie beyond."""
        try:
            tried = sorted(self.scores, key=float)
        except ValueError:  # names have no order
            return False
        return self.value in (tried[0], tried[-1]) if tried else False


def choose(grid: Grid, results: Path, *, unfinished: bool = False) -> list[Choice]:
    """Select for each arm the value with the best mean accuracy by the study's ``select.protocol``.

    A value with a failed seed is not selected. Of equal means the first wins.

    Args:
        grid: of a study with ``select``.
        results: the study's folder, with ``cells/`` or their archive.
        unfinished: whether deciding cells may be missing.

    Raises:
        InputError: deciding cells are missing, or an arm has failed seeds at every value.
    """
    select = grid.study.select
    assert select is not None, "the study selects"
    archived = stand_ins(grid, results)

    def score(path: str) -> float:
        folder, config = results / "cells" / path, grid.cells[path].hash
        _, accuracies = read_cell(folder, config, grid.study.evaluate, archived.get(path))
        return accuracies.get(select.protocol, math.nan)

    choices = []
    for arm in arms(grid):
        if len(arm.candidates) == 1:
            choices.append(Choice(arm, {}, next(iter(arm.candidates))))
            continue
        try:
            scores = {
                value: [score(path) for path in candidate.deciding]
                for value, candidate in arm.candidates.items()
            }
            means = Choice(arm, scores, None).means
            eligible = [value for value, mean in means.items() if not math.isnan(mean)]
            if not eligible:
                raise InputError(
                    f"{results}: select: {arm.name}: every value of {select.axis} has a failed "
                    "seed: leave the arm out of the study, or give it other values"
                )
            best = max(eligible, key=means.__getitem__)
            choices.append(Choice(arm, scores, best))
        except InputError as error:
            if not unfinished:
                raise
            choices.append(Choice(arm, {}, None, str(error)))
    return choices


def confirmed(grid: Grid, choices: list[Choice]) -> Grid:
    """The grid of the cells that confirm the selected values; arms without one are left out."""
    return grid.only(
        path
        for choice in choices
        if choice.value is not None
        for path in choice.arm.candidates[choice.value].confirming
    )


def needed(grid: Grid, results: Path) -> Grid:
    """The grid of the cells that have to run, as far as that is known: all if nothing is selected.

    Of a study with ``select`` these are the deciding cells, and the confirming cells of each arm
    whose value is known.
    """
    if not grid.study.select:
        return grid
    choices = choose(grid, results, unfinished=True)
    deciding = [
        path
        for choice in choices
        for candidate in choice.arm.candidates.values()
        for path in candidate.deciding
    ]
    return grid.only([*deciding, *confirmed(grid, choices).cells])
