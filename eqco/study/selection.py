"""Selection: a value of one axis for each arm of a grid, by accuracies on validation images.

An arm is a configuration but for that axis: what is compared, each at a value of its own.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from eqco.study.fields import Section, Seed

if TYPE_CHECKING:
    from eqco.study.grid import Grid


class Select(Section):
    """The axis whose value is selected, and by what."""

    axis: str = Field(description="an axis of which a block lists several values, as `lr`")
    protocol: str = Field(
        description="the protocol that decides, on validation images: `linear-lbfgs@validation`"
    )
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(
        description="the seeds that decide; a block's seeds are trained at the selected value alone"
    )


@dataclass(frozen=True)
class Candidate:
    """The cells of an arm at one value: those that decide, and those that confirm."""

    deciding: list[str] = field(default_factory=list)
    confirming: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Arm:
    """A configuration but for the selected axis.

    Args:
        name: the path of its cells without the axis and the seed.
        candidates: by value, as the path writes it, in the grid's order.
    """

    name: str
    candidates: dict[str, Candidate] = field(default_factory=dict)


def arms(grid: "Grid") -> list[Arm]:
    """The arms of a grid whose study selects, in its order."""
    select = grid.study.select
    assert select is not None, "the study selects"
    found: dict[str, Arm] = {}
    for path, one in grid.cells.items():
        name, value = split(path, select.axis)
        candidate = found.setdefault(name, Arm(name)).candidates.setdefault(value, Candidate())
        decides = one.cell.seed in select.seeds
        (candidate.deciding if decides else candidate.confirming).append(path)
    return list(found.values())


def split(path: str, axis: str) -> tuple[str, str]:
    """The arm of a cell's path, and its value of the axis."""
    values = dict(part.split("~", 1) for part in path.split("/"))
    value = values.pop(axis)
    del values["seed"]
    return "/".join(f"{name}~{text}" for name, text in values.items()), value


def planned(grid: "Grid") -> "Grid":
    """A grid of as many cells as will run: each arm is confirmed at its first value."""
    if not grid.study.select:
        return grid
    paths: list[str] = []
    for arm in arms(grid):
        paths += next(iter(arm.candidates.values())).confirming
        paths += [path for one in arm.candidates.values() for path in one.deciding]
    return grid.only(paths)
