"""Diagnostics of a training step: of its loss, and of the step that the weights take.

Computed only on the last step of each epoch: on every step they cost 22 %.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eqco.losses import Negatives
from eqco.study.cell import Cell
from eqco.study.recipe import LossSettings
from eqco.training.objective import weights

NAMES = ("weight", "weight_cv", "positive", "negative", "gradient")
STEP_NAMES = ("parameter_gradient", "angular_step")


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


class Step:
    """The step of the weights: made before the optimiser's, asked after it.

    Args:
        method: the networks, with the gradients of the step.
    """

    def __init__(self, method: nn.Module) -> None:
        gradients = [p.grad for p in method.parameters() if p.grad is not None]
        self.gradient = nn.utils.get_total_norm(gradients)
        self.weights = before_batch_norm(method)
        self.directions = [_direction(weight) for weight in self.weights]

    @torch.no_grad()
    def measure(self) -> Tensor:
        """The numbers of STEP_NAMES (2,), on the device.

        ‖∂L/∂θ‖ over all parameters; and the mean over the layers before a batch norm of the angle
        in radians by which the step has turned their weights, NaN without such a layer. Batch norm
        takes the size of these weights away, so the angle is their learning rate.
        """
        # 2 asin(‖a − b‖ / 2): the angle's cosine is 1 in float32 long before the angle is 0
        chords = [
            (_direction(weight) - before).norm()
            for weight, before in zip(self.weights, self.directions, strict=True)
        ]
        angle = 2 * (torch.stack(chords) / 2).asin().mean() if chords else self.gradient * math.nan
        return torch.stack([self.gradient, angle])


def before_batch_norm(network: nn.Module) -> list[Tensor]:
    """The trained weights of the layers whose output a batch norm normalises, channel by channel.

    A network has these layers and their batch norms in pairs, one behind the other.
    """
    layers = [
        m  # timm's batch norm has an activation within it
        for m in network.modules()
        if isinstance(m, _BatchNorm) or not next(m.children(), None)
    ]
    return [
        layer.weight
        for layer, norm in pairwise(layers)
        if isinstance(layer, nn.Conv2d | nn.Linear)
        and isinstance(norm, _BatchNorm)
        and layer.weight.requires_grad
    ]


def _direction(weight: Tensor) -> Tensor:
    return weight.detach() / weight.detach().norm()


def effective_rate(lr: float, weight: float | None, cv: float | None) -> float | None:
    """lr · W̄ · √(1 + cv²): the rate of DCL that makes steps as large, if noise dominates them.

    None for a loss without a weight.

    Args:
        lr: the learning rate.
        weight: W̄, the mean of W over anchors.
        cv: the coefficient of variation of W.
    """
    return None if weight is None or cv is None else lr * weight * math.sqrt(1 + cv**2)


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
