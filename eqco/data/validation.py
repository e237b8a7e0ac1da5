"""Parts of the training images that have every class: those to validate, those with labels."""

from typing import TYPE_CHECKING

from eqco.errors import InputError
from eqco.study.datasets import Data

if TYPE_CHECKING:
    from torch import Tensor


def to_validate(labels: "Tensor", spec: Data) -> "Tensor":
    """The images that ``data.validation`` takes out of the training split.

    A function of the labels and of the count alone, the same for every cell. Images are taken at
    random, of each class in proportion to its size, within one. A larger count takes the same
    images and more.

    Args:
        labels: of the training split (M,) int64.
        spec: the dataset's section of a study.

    Returns:
        Whether each image is to validate (M,) bool.

    Raises:
        InputError: if a class is left without an image to train on.
    """
    import torch

    taken = torch.zeros(len(labels), dtype=torch.bool)
    if not spec.validation:
        return taken
    taken[in_proportion(labels, seed=0)[: spec.validation]] = True
    classes = len(labels.unique())
    if len(labels[~taken].unique()) < classes:
        raise InputError(
            f"data.validation: {spec.validation}: of {len(labels)} training images it must leave "
            f"each of the {classes} classes one to train on"
        )
    return taken


def in_proportion(labels: "Tensor", seed: int) -> "Tensor":
    """The images (M,) in a random order whose first so many have each class in proportion.

    Args:
        labels: of the images (M,) int64, on the CPU.
        seed: of the order.
    """
    import torch

    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    share = torch.empty(len(labels))  # of its class that an image and those before it are
    for label in labels.unique():
        of_class = order[labels[order] == label]
        share[of_class] = (torch.arange(len(of_class)) + 0.5) / len(of_class)
    return order[share[order].argsort(stable=True)]
