"""Diagnostics of a training step.

Computed only on the last step of each epoch: on every step they cost 22 %.
"""

import math

import torch
from torch import Tensor

from eqco.losses import Negatives
from eqco.study.cell import Cell
from eqco.study.recipe import LossSettings
from eqco.training.objective import weights

NAMES = ("weight", "weight_cv", "positive", "negative", "gradient")


@torch.no_grad()
def measure(
    positive: Tensor, negatives: Negatives, queries: Tensor, cell: Cell, settings: LossSettings
) -> Tensor:
    """The numbers of NAMES for a step after its backward pass, (5,), on the device.

    Args:
        positive: s0 (A,).
        negatives: s_1 … s_K (A, K).
        queries: gradient of the mean loss at the unit embeddings of the anchors, (A, D).
        cell: for the loss, τ and the margin.
        settings: of the losses that are not an InfoNCE with a margin.

    Returns:
        The mean and the coefficient of variation, over anchors, of the loss's weight W
        (``objective.weights``), NaN for a loss without one. Then the mean similarity of positives,
        that of negatives, and the mean over anchors of ‖∂L_i/∂q_i‖.
    """
    w = weights(cell, settings, positive, negatives)
    if w is None:
        w = torch.full_like(positive, math.nan)
    gradient = queries.norm(dim=1).mean() * len(queries)  # the loss is a mean over anchors
    cv = w.std(correction=0) / w.mean()
    return torch.stack([w.mean(), cv, positive.mean(), negatives.mean(), gradient])


def bound(cell: Cell, loss: float) -> float | None:
    """log(1 + K exp(m/τ)) − L, in nats: EqCo's bound on the mutual information of two views.

    From the derivation of arXiv 2010.01929. With α = K exp(m/τ) it is log(1 + α) − L. It is a bound
    only if m ≤ 0 or K is large. With α > K and few negatives it overstates the information: for
    Gaussians of 2 nats it gives 2.99 at K = 2, α = 256. None for losses without a finite margin.
    """
    if cell.loss != "info-nce" or cell.m == math.inf:
        return None
    exponent = math.log(cell.negatives) + cell.m / cell.temperature
    return max(exponent, 0.0) + math.log1p(math.exp(-abs(exponent))) - loss
