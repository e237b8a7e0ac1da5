"""A study: its data, its recipe, its protocols and its grid; the configuration of each cell.

A study is a YAML file in ``params/``; ``params/README.md`` explains every key. These models are the
one source: ``params/schema.json`` is generated from them, for editors.
"""

import hashlib
from functools import cached_property, reduce
from typing import Annotated, Any

from pydantic import Field, model_validator

from eqco.runtime.files import canonical
from eqco.study.axes import SECTIONS
from eqco.study.cell import Block, Cell
from eqco.study.claims import Claim, Comparison
from eqco.study.datasets import Data
from eqco.study.expansion import Place, Variant, expand, variants
from eqco.study.fields import LOSS_SETTINGS, Name, Positive, Section, refuse
from eqco.study.protocols import ONLINE, VALIDATION_SUFFIX, Evaluate
from eqco.study.recipe import Augment, LossSettings, Network, Pretrain
from eqco.study.rules import RULES
from eqco.study.selection import Select
from eqco.study.weights import weights_hash


class Study(Section):
    """A study file."""

    study: Name = Field(description="name; results go to `results/<study>/`")
    data: Data = Field(description="the dataset, by its `kind`")
    augment: Augment = Field(description="how a view is made")
    network: Network = Field(description="the encoder")
    pretrain: Pretrain = Field(description="the recipe")
    evaluate: Evaluate = Field(Evaluate(), description="settings of the protocols")
    loss: LossSettings = Field(
        LossSettings(), description="settings of the losses without a margin"
    )
    alpha: Positive = Field(
        description="α, the number of negatives that EqCo's margin τ log(α/K) stands in for"
    )
    temperature: Positive = Field(description="τ, by which similarities are divided")
    select: Select | None = Field(
        None,
        description="for each arm the best value of one axis, by validation images",
        exclude_if=lambda select: select is None,  # a study from before this key stays the same
    )
    comparisons: list[Comparison] = Field(
        [],
        description="differences that the table step computes",
        exclude_if=lambda found: not found,
    )
    claims: list[Claim] = Field(
        [], description="sentences that a comparison decides", exclude_if=lambda found: not found
    )
    grid: Annotated[list[Block], Field(min_length=1)] = Field(
        description="blocks; the study's cells are all of their cells, each once"
    )

    @model_validator(mode="after")
    def _possible(self) -> "Study":
        for rule in RULES:
            for problem in rule(self):
                refuse(*problem)
        return self

    @property
    def protocols(self) -> list[str]:
        """The names of the protocols that give a cell's accuracies, on test images first."""
        online = self.variants[0].study.pretrain.online  # a rule: all cells have one, or none
        names = self.evaluate.protocols + [ONLINE] * bool(online)
        on_validation = [f"{name}{VALIDATION_SUFFIX}" for name in names]
        return names + on_validation * bool(self.data.validation) + self.evaluate.transfers

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Every cell of the grid with its path, in the order of the study file."""
        return tuple(expand(self))

    @cached_property
    def variants(self) -> tuple[Variant, ...]:
        """Every recipe that a cell of the grid has."""
        return tuple(variants(self))

    @cached_property
    def changes(self) -> dict[tuple[tuple[str, Any], ...], "Study"]:
        """The results of ``changed``."""
        return {}

    def value(self, key: str) -> Any:
        """The value of a dotted key, e.g. ``pretrain.lr``; None within a section that is None."""
        section: Any = self
        for name in key.split("."):
            section = getattr(section, name, None)
        return section

    def changed(self, values: tuple[tuple[str, Any], ...]) -> "Study":
        """The study with other values of its recipe, by dotted key, and without its axes for them.

        Raises:
            ValidationError: of pydantic, if a section does not allow a value.
        """
        if values not in self.changes:
            sections = {name: self.value(name).model_dump() for name in SECTIONS}
            for key, value in values:
                *path, last = key.split(".")
                section = reduce(lambda inner, name: inner[name], path, sections)
                section[last] = list(value) if isinstance(value, tuple) else value
            fields = {name: getattr(self, name) for name in type(self).model_fields}
            checked = {name: SECTIONS[name].model_validate(sections[name]) for name in SECTIONS}
            self.changes[values] = Study.model_construct(**{**fields, **checked})
        return self.changes[values]

    def of(self, cell: Cell) -> "Study":
        """The study as a cell sees it: the recipe with the values of the cell's axes."""
        return self.changed(cell.settings) if cell.settings else self

    def resolve(self, cell: Cell) -> dict[str, Any]:
        """The configuration of a cell: all that its pretraining depends on, as plain values."""
        own = self.of(cell)
        parts = own.model_dump(mode="json", include={"data", "augment", "network", "pretrain"})
        parts["data"].pop("root", None)  # where the files lie is not what they are
        parts["data"].pop("path", None)
        if own.network.weights:
            parts["network"]["weights"] = weights_hash(own.network.weights)
        written = cell.model_dump(mode="json")
        # These two stand in the cell if they are axes, which is older than the other axes.
        for key in ("optimizer", "weight_decay"):
            if f"pretrain.{key}" in dict(cell.settings):
                written[key] = getattr(own.pretrain, key)
                parts["pretrain"].pop(key, None)  # the default optimiser is not written
        # The cell has these, scaled if the recipe says so.
        for key in ("batch", "lr", "lr_per"):
            parts["pretrain"].pop(key, None)
        # These three are in every configuration with settings, whether its loss reads them or not.
        read = {"inter", "sigma", "detach", *LOSS_SETTINGS.get(cell.loss, ())}
        settings = own.loss.model_dump(mode="json", include=read)
        has_settings = cell.loss in LOSS_SETTINGS
        return {**parts, "loss": settings if has_settings else None, "cell": written}


def config_hash(resolved: dict[str, Any]) -> str:
    """16 hex digits that name a resolved configuration, the same on every machine."""
    return hashlib.sha256(canonical(resolved).encode()).hexdigest()[:16]
