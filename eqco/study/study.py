"""A study: its data, its recipe, its protocols and its grid; the configuration of each cell.

A study is a YAML file in ``params/``; ``params/README.md`` explains every key. These models are the
one source: ``params/schema.json`` is generated from them, for editors.
"""

import hashlib
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, model_validator

from eqco.runtime.files import canonical
from eqco.study.cell import Block, Cell, Place, expand
from eqco.study.datasets import Data
from eqco.study.fields import Name, Positive, Section, refuse
from eqco.study.protocols import Evaluate
from eqco.study.recipe import Augment, LossSettings, Network, Pretrain
from eqco.study.rules import RULES


class Study(Section):
    """A study file."""

    study: Name = Field(description="results go to results/<study>/")
    data: Data
    augment: Augment
    network: Network
    pretrain: Pretrain
    evaluate: Evaluate = Evaluate()
    loss: LossSettings = LossSettings()
    alpha: Positive = Field(description="α, the number of negatives that EqCo stands in for")
    temperature: Positive = Field(description="τ")
    grid: Annotated[list[Block], Field(min_length=1)]

    @model_validator(mode="after")
    def _possible(self) -> "Study":
        for rule in RULES:
            for problem in rule(self):
                refuse(*problem)
        return self

        return self

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Every cell of the grid with its path, in the order of the study file."""
        return tuple(expand(self.grid, self.pretrain, self.alpha, self.temperature))

    def resolve(self, cell: Cell) -> dict[str, Any]:
        """The configuration of a cell: all that its pretraining depends on, as plain values."""
        parts = self.model_dump(mode="json", include={"data", "augment", "network", "pretrain"})
        parts["data"].pop("root", None)  # where the files lie is not what they are
        parts["data"].pop("path", None)
        # the cell's stand in place of the recipe's
        for axis in ("batch", "optimizer", "lr", "weight_decay"):
            if getattr(cell, axis) is not None:
                parts["pretrain"].pop(axis, None)  # the default optimiser is not written
        parts["pretrain"].pop("lr_per", None)  # the cell's learning rate follows from it
        reads_settings = cell.loss in ("dclw", "dual-temperature")
        settings = self.loss.model_dump(mode="json") if reads_settings else None
        return {**parts, "loss": settings, "cell": cell.model_dump(mode="json")}


def config_hash(resolved: dict[str, Any]) -> str:
    """16 hex digits that name a resolved configuration, the same on every machine."""
    return hashlib.sha256(canonical(resolved).encode()).hexdigest()[:16]
