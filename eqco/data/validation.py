"""The validation images of a study: training images that no cell is trained on."""

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
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    classes = labels.unique()
    share = torch.empty(len(labels))  # of its class that an image and those before it are
    for label in classes:
        of_class = order[labels[order] == label]
        share[of_class] = (torch.arange(len(of_class)) + 0.5) / len(of_class)
    taken[order[share[order].argsort(stable=True)][: spec.validation]] = True
    if len(labels[~taken].unique()) < len(classes):
        raise InputError(
            f"data.validation: {spec.validation}: of {len(labels)} training images it must leave "
            f"each of the {len(classes)} classes one to train on"
        )
    return taken
