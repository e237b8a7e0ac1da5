"""The grid's parts: a block, whose lists span it, and a cell, one point of it."""

import math
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from eqco.study.axes import With
from eqco.study.fields import (
    Count,
    Loss,
    Margin,
    Method,
    NotNegative,
    Optimizer,
    Positive,
    Section,
    Seed,
)


def _kind_of_negatives(negatives: Any) -> str:
    return "all" if isinstance(negatives, str) else "list"


def _kind_of_with(mappings: Any) -> str:
    return "mappings" if isinstance(mappings, list) else "mapping"


# Discriminators: one error for a mistake, not one for each alternative.
Negatives = Annotated[
    Annotated[Literal["all"], Tag("all")]
    | Annotated[list[Count], Field(min_length=1), Tag("list")],
    Discriminator(_kind_of_negatives),
]
Withs = Annotated[
    Annotated[With, Tag("mapping")] | Annotated[list[With], Field(min_length=1), Tag("mappings")],
    Discriminator(_kind_of_with),
]


class Block(Section):
    """A block of the grid: every combination of its lists is a cell."""

    methods: Annotated[list[Method], Field(min_length=1)] = Field(
        description="who is contrasted with whom"
    )
    negatives: Negatives = Field(
        description="K, negatives per query; `all`: every negative that a method can draw at the "
        "batch, as 2(N − 1) by `simclr`"
    )
    margins: Annotated[list[Margin], Field(min_length=1)] = Field(
        description="m, subtracted from the positive similarity: 0 is InfoNCE, `eqco` is "
        "τ log(α/K), `inf` is DCL, or any number"
    )
    losses: Annotated[list[Loss], Field(min_length=1)] | None = Field(
        None, description="the loss as an axis, in place of InfoNCE with a margin"
    )
    alphas: Annotated[list[Positive], Field(min_length=1)] | None = Field(
        None, description="α as an axis, in place of the study's"
    )
    temperatures: Annotated[list[Positive], Field(min_length=1)] | None = Field(
        None, description="τ as an axis, in place of the study's"
    )
    batches: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)] | None = Field(
        None, description="N as an axis, in place of the recipe's"
    )
    optimizers: Annotated[list[Optimizer], Field(min_length=1)] | None = Field(
        None,
        description="the optimiser as an axis, in place of the recipe's",
        exclude_if=lambda names: names is None,  # a study from before this key stays the same
    )
    lrs: Annotated[list[Positive], Field(min_length=1)] | None = Field(
        None, description="the learning rate as an axis, in place of the recipe's"
    )
    weight_decays: Annotated[list[NotNegative], Field(min_length=1)] | None = Field(
        None,
        description="the weight decay as an axis, in place of the recipe's",
        exclude_if=lambda decays: decays is None,  # a study from before this key stays the same
    )
    with_: Withs | None = Field(
        None,
        alias="with",
        description="any keys of the recipe as axes: lists of values by dotted key, as "
        "`pretrain.ema`; or a list of such mappings, of which each gives its own cells",
        exclude_if=lambda mappings: mappings is None,  # a study from before this key stays the same
    )
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(
        description="a seed fixes weights, order, views and negatives"
    )


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
    seed: int
    settings: tuple[tuple[str, Any], ...] = Field(
        (),
        description="the other keys of the recipe that are axes of the study, with this cell's "
        "values; Study.of puts them in their places",
        exclude=True,
    )

    @property
    def m(self) -> float:
        """The margin m as a number: EqCo's is τ log(α/K) (arXiv 2010.01929), DCL's is infinite."""
        if self.margin == "eqco":
            assert self.alpha is not None, "a cell with EqCo's margin has an α"
            return self.temperature * math.log(self.alpha / self.negatives)
        return self.margin

    @property
    def effective_alpha(self) -> float:
        """α = K exp(m/τ): InfoNCE without a margin has the same weight at α negatives.

        EqCo's own α for its margin, K for margin 0, infinite for DCL. It has no meaning for the
        other losses.
        """
        if self.margin == "eqco":
            assert self.alpha is not None, "a cell with EqCo's margin has an α"
            return self.alpha  # without the rounding of log and exp
        try:
            return self.negatives * math.exp(self.m / self.temperature)
        except OverflowError:
            return math.inf
