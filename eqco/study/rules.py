"""The rules of what may not be combined in a study: one generator function each.

A rule yields a problem for each breach: the key, its value, and what is allowed.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from eqco.study.cell import Cell
from eqco.study.methods import METHODS

if TYPE_CHECKING:
    from eqco.study.study import Study

Problem = tuple[str, Any, str]


def batches_fit_the_data(study: "Study") -> Iterator[Problem]:
    """A batch has at most as many images as the training set."""
    images = study.data.train_size
    for key, batch in _batches(study):
        if images is not None and batch > images:
            yield key, batch, f"the data has {images} training images"


def batches_split_evenly(study: "Study") -> Iterator[Problem]:
    """A batch splits into equal groups of batch norm."""
    groups = study.network.batch_norm_groups
    for key, batch in _batches(study):
        if batch % groups:
            yield key, batch, f"must be a multiple of batch_norm_groups, {groups}"


def enough_candidates(study: "Study") -> Iterator[Problem]:
    """K is at most the number of candidates that a method draws its negatives from."""
    queue = study.pretrain.queue
    for b, block in enumerate(study.grid):
        for batch in block.batches or [study.pretrain.batch]:
            for i, k in enumerate(block.negatives if block.negatives != "all" else []):
                for method in block.methods:
                    most = METHODS[method].candidates(batch, queue)
                    if most is not None and k > most:
                        allowed = f"{method} allows 1 to {most}, the negatives to draw from"
                        yield f"grid.{b}.negatives.{i}", k, f"{allowed} at batch {batch}"


def all_candidates(study: "Study") -> Iterator[Problem]:
    """``negatives: all`` needs a method whose candidates are counted."""
    for b, block in enumerate(study.grid):
        for method in block.methods if block.negatives == "all" else []:
            if METHODS[method].candidates(study.pretrain.batch, study.pretrain.queue) is None:
                yield f"grid.{b}.negatives", "all", f"{method} needs pretrain.queue, its length"


def symmetric_methods(study: "Study") -> Iterator[Problem]:
    """``pretrain.symmetric`` needs methods for which it is a choice."""
    for key, method in _methods(study):
        if study.pretrain.symmetric and not METHODS[method].symmetric:
            able = ", ".join(name for name, entry in METHODS.items() if entry.symmetric)
            yield key, method, f"pretrain.symmetric is a choice of {able} alone"


def key_encoders(study: "Study") -> Iterator[Problem]:
    """``evaluate.key_encoder`` needs methods that have one."""
    for key, method in _methods(study):
        if study.evaluate.key_encoder and not METHODS[method].momentum:
            able = ", ".join(name for name, entry in METHODS.items() if entry.momentum)
            yield key, method, f"evaluate.key_encoder is a choice of {able} alone"


def support_set(study: "Study") -> Iterator[Problem]:
    """NNCLR needs the length of its support set."""
    for key, method in _methods(study):
        if method == "nnclr" and not study.pretrain.queue:
            yield key, method, "needs pretrain.queue, the length of its support set"


def margins_of_info_nce_alone(study: "Study") -> Iterator[Problem]:
    """A margin belongs to InfoNCE; the other losses have none."""
    for b, block in enumerate(study.grid):
        for i, loss in enumerate(block.losses or []):
            if loss != "info-nce" and block.margins != [0]:
                yield f"grid.{b}.losses.{i}", loss, "has no margin: margins must be [0]"


def each_cell_once(study: "Study") -> Iterator[Problem]:
    """A cell stands in the grid only once."""
    block_of: dict[Cell, int] = {}
    for b, path, cell in study.places:
        if cell in block_of:
            allowed = f"is in grid.{block_of[cell]} already; a cell may stand in the grid only once"
            yield f"grid.{b}", path, allowed
        block_of[cell] = b


RULES: tuple[Callable[["Study"], Iterator[Problem]], ...] = (
    batches_fit_the_data,
    batches_split_evenly,
    enough_candidates,
    all_candidates,
    symmetric_methods,
    key_encoders,
    support_set,
    margins_of_info_nce_alone,
    each_cell_once,
)


def _batches(study: "Study") -> Iterator[tuple[str, int]]:
    """Every batch of the study's cells, with its key."""
    for b, block in enumerate(study.grid):
        for i, batch in enumerate(block.batches or []):
            yield f"grid.{b}.batches.{i}", batch
    if not all(block.batches for block in study.grid):
        yield "pretrain.batch", study.pretrain.batch


def _methods(study: "Study") -> Iterator[tuple[str, str]]:
    """Every method of the study's blocks, with its key."""
    for b, block in enumerate(study.grid):
        for i, method in enumerate(block.methods):
            yield f"grid.{b}.methods.{i}", method
