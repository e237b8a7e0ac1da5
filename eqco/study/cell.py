"""The grid's parts: a block, whose lists span it, and a cell, one point of it."""

import math
from collections.abc import Iterator
from itertools import product
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Discriminator, Field, Tag

from eqco.study.fields import Count, Loss, Margin, Method, NotNegative, Optimizer, Positive, Section
from eqco.study.methods import METHODS
from eqco.study.recipe import Pretrain

AXES = {  # of a cell, in the order of its path, and the block's key that lists their values
    "method": "methods",
    "loss": "losses",
    "negatives": "negatives",
    "margin": "margins",
    "alpha": "alphas",
    "temperature": "temperatures",
    "batch": "batches",
    "optimizer": "optimizers",
    "lr": "lrs",
    "weight_decay": "weight_decays",
    "seed": "seeds",
}


def _kind(negatives: Any) -> str:
    return "all" if isinstance(negatives, str) else "list"


Negatives = Annotated[
    Annotated[Literal["all"], Tag("all")]
    | Annotated[list[Count], Field(min_length=1), Tag("list")],
    Discriminator(_kind),  # one error for a mistake, not one for each alternative
]


class Block(Section):
    """A block of the grid: every combination of its lists is a cell."""

    methods: Annotated[list[Method], Field(min_length=1)]
    negatives: Negatives = Field(
        description="K, per query; all: every negative that a method can draw at the batch"
    )
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
    optimizers: Annotated[list[Optimizer], Field(min_length=1)] | None = Field(
        None,
        description="the optimiser, as an axis, in place of the recipe's",
        exclude_if=lambda names: names is None,  # a study from before this key stays the same
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
    optimizer: Optimizer | None = Field(
        None,
        description="None where it is the recipe's",
        exclude_if=lambda name: name is None,  # cells from before this axis keep their hashes
    )
    lr: float
    weight_decay: float | None = Field(
        None,
        description="None where it is the recipe's",
        exclude_if=lambda decay: decay is None,  # cells from before this axis keep their hashes
    )
    seed: int

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


class Place(NamedTuple):
    """A cell, its path and the number of the block that holds it."""

    block: int
    path: str
    cell: Cell


def axes(blocks: list[Block], recipe: Pretrain) -> list[str]:
    """The axes in the path of each cell, in order.

    Method, negatives, margin and seed are always there; the others if a block lists values for
    them; the learning rate also if it follows the batch, and a block lists batches.
    """
    listed = {key for block in blocks for key in AXES.values() if getattr(block, key)}
    if recipe.lr_per and "batches" in listed:
        listed.add("lrs")
    return [name for name, key in AXES.items() if key in listed]


def text(value: str | float) -> str:
    """The text of an axis value in paths and tables: ``simo``, ``16``, ``0.2``, ``inf``."""
    return value if isinstance(value, str) else f"{value:.12g}"


def expand(
    blocks: list[Block], recipe: Pretrain, alpha: float, temperature: float
) -> Iterator[Place]:
    """The cells of a grid: every combination of each block's lists, in the file's order.

    The batch is the outermost axis of a block, since K and the learning rate may follow it.

    Args:
        blocks: the blocks of the grid.
        recipe: batch, optimiser, learning rate and weight decay of a block that lists none; the
            length of the queue; the linear scaling rule.
        alpha: α of a block that lists none.
        temperature: τ of a block that lists none.
    """
    path_axes = axes(blocks, recipe)
    defaults: dict[str, str | float] = {
        "loss": "info-nce",
        "alpha": alpha,
        "temperature": temperature,
        "batch": recipe.batch,
        "optimizer": recipe.optimizer,
        "lr": recipe.lr,
        "weight_decay": recipe.weight_decay,
    }
    for b, block in enumerate(blocks):
        for batch in block.batches or [recipe.batch]:
            lists = {name: getattr(block, key) or [defaults[name]] for name, key in AXES.items()}
            lists["batch"] = [batch]
            lists["lr"] = [recipe.scaled(lr, batch) for lr in lists["lr"]]
            if block.negatives == "all":
                lists["negatives"] = ["all"]
            for combination in product(*lists.values()):
                values = dict(zip(AXES, combination, strict=True))
                if values["negatives"] == "all":
                    values["negatives"] = METHODS[values["method"]].candidates(batch, recipe.queue)
                path = "/".join(f"{name}~{text(values[name])}" for name in path_axes)
                if values["margin"] != "eqco":  # only EqCo's margin reads α
                    del values["alpha"]
                for name in ("optimizer", "weight_decay"):
                    if name not in path_axes:
                        del values[name]
                yield Place(b, path, Cell.model_validate({"alpha": None, **values}))
