"""The grid's parts: a block, whose lists span it, and a cell, one point of it."""

from typing import Annotated

from pydantic import Field

from eqco.study.fields import Count, Loss, Margin, Method, NotNegative, Positive, Section


class Block(Section):
    """A block of the grid: every combination of its lists is a cell."""

    methods: Annotated[list[Method], Field(min_length=1)]
    negatives: Annotated[list[Count], Field(min_length=1)] = Field(description="K, per query")
    margins: Annotated[list[Margin], Field(min_length=1)] = Field(
        description="m: 0 (InfoNCE), a number, eqco (τ log(α/K)), inf (DCL)"
    )
    losses: Annotated[list[Loss], Field(min_length=1)] | None = Field(
        None, description="as an axis, in place of InfoNCE with a margin"
    )
    alphas: Annotated[list[Positive], Field(min_length=1)] | None = Field(
        None, description="α, as an axis, in place of the study's"
    )
    temperatures: Annotated[list[Positive], Field(min_length=1)] | None = Field(
        None, description="τ, as an axis, in place of the study's"
    )
    batches: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)] | None = Field(
        None, description="N, as an axis, in place of the recipe's"
    )
    lrs: Annotated[list[Positive], Field(min_length=1)] | None = Field(
        None, description="the learning rate, as an axis, in place of the recipe's"
    )
    weight_decays: Annotated[list[NotNegative], Field(min_length=1)] | None = Field(
        None,
        description="the weight decay, as an axis, in place of the recipe's",
        exclude_if=lambda decays: decays is None,  # a study from before this key stays the same
    )
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)]


class Cell(Section):
    """One point of the grid: one pretraining."""

    method: Method
    loss: Loss = "info-nce"
    negatives: int
    margin: Margin
    alpha: float | None = Field(description="None where the margin does not depend on it")
    temperature: float
    batch: int
    lr: float
    weight_decay: float | None = Field(
        None,
        description="None where it is the recipe's",
        exclude_if=lambda decay: decay is None,  # cells from before this axis keep their hashes
    )
    seed: int
