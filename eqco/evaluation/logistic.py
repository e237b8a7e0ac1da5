"""Logistic regression on fixed features, by L-BFGS."""

import torch
from torch import Tensor
from torch.nn import functional as F

from eqco.data.validation import in_proportion
from eqco.errors import InputError
from eqco.evaluation.features import Features
from eqco.runtime.seeds import draw_seed
from eqco.study.protocols import LinearLBFGS


def linear_lbfgs(features: Features, params: LinearLBFGS, seed: int) -> dict[str, float]:
    """Multinomial logistic regression on standardised features, by full-batch L-BFGS.

    Minimises mean cross-entropy + l2 · ½‖W‖², in float64; the bias is not penalised. Of few labels
    the training images are drawn, each class in proportion to its size. The features' mean and
    deviation, which need no labels, are those of all training images.

    Args:
        features: of the splits.
        params: the protocol.
        seed: for the draw of the images with labels.

    Returns:
        The accuracies of each of ``params.fits``, as ``Features.accuracies``.

    Raises:
        InputError: if a share of the labels leaves a class without one.
    """
    mean, std = features.train.mean(0), features.train.std(0).clamp(min=1e-6)
    train, rated = (((x - mean) / std).double() for x in (features.train, features.rated))
    accuracies: dict[str, float] = {}
    for name, share in params.fits.items():
        if share == 1:
            weight, bias = _fit(train, features.train_labels, features.classes, params)
        else:
            rows = _with_labels(features.train_labels, share, seed)
            weight, bias = _fit(train[rows], features.train_labels[rows], features.classes, params)
        accuracies |= features.accuracies(name, F.linear(rated, weight, bias))
    return accuracies


def _with_labels(labels: Tensor, share: float, seed: int) -> Tensor:
    """The images of the training split whose labels are used (L,)."""
    order = in_proportion(labels.cpu(), draw_seed(seed, "labels", 0)).to(labels.device)
    rows = order[: round(share * len(labels))]
    classes = len(labels.unique())
    if len(labels[rows].unique()) < classes:
        raise InputError(
            f"evaluate.linear_lbfgs.labels: {share:g}: of {len(labels)} training images it must "
            f"have one of each of the {classes} classes"
        )
    return rows


def _fit(x: Tensor, y: Tensor, classes: int, params: LinearLBFGS) -> tuple[Tensor, Tensor]:
    """Weight (Y, F) and bias (Y,) for features (M, F) and labels (M,)."""
    weight = x.new_zeros(classes, x.shape[1], requires_grad=True)  # (Y, F)
    bias = x.new_zeros(classes, requires_grad=True)  # (Y,)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=params.iterations,
        tolerance_grad=1e-6,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(x, weight, bias), y)
        loss = loss + 0.5 * params.l2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    return weight, bias
