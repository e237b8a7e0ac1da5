"""The loss of a cell: from the similarities of anchors to a loss and a weight W per anchor."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from eqco.losses import Negatives, dcl, dclw, dual_temperature, info_nce, weight
from eqco.study.cell import Cell
from eqco.study.recipe import LossSettings

Objective = Callable[[Tensor, Negatives], Tensor]  # (A,), (A, K) -> (A,)


def objective(cell: Cell, settings: LossSettings) -> Objective:
    """The loss per anchor, whose mean the cell minimises.

    Two losses are controls. They tell apart whether a gain comes from the weighting of anchors or
    from the scale of the gradient. ``info-nce-rescaled`` is InfoNCE divided by the batch mean of
    its W: the anchors keep their different weights, and the mean weight is 1. ``dcl-rescaled`` is
    DCL times that mean: all anchors weigh the same, and the mean weight is InfoNCE's.
    """
    tau = cell.temperature
    match cell.loss:
        case "dclw":
            return partial(dclw, temperature=tau, sigma=settings.sigma, detach=settings.detach)
        case "dual-temperature":
            return partial(dual_temperature, intra=tau, inter=settings.inter)
        case "info-nce-rescaled":
            return lambda s0, s: info_nce(s0, s, temperature=tau) / _mean_weight(s0, s, tau)
        case "dcl-rescaled":
            return lambda s0, s: dcl(s0, s, temperature=tau) * _mean_weight(s0, s, tau)
        case _:
            return partial(info_nce, temperature=tau, margin=cell.m)


def weights(
    cell: Cell, settings: LossSettings, positive: Tensor, negatives: Negatives
) -> Tensor | None:
    """The weight W (A,) of the cell's loss, the factor of its gradient relative to DCL's.

    None for DCLW, whose weight is on the positive term alone.

    Args:
        cell: the loss, its margin and τ.
        settings: τ_β of the dual temperature.
        positive: s0 (A,).
        negatives: s_1 … s_K (A, K).
    """
    if cell.loss == "dclw":
        return None
    tau = settings.inter if cell.loss == "dual-temperature" else cell.temperature
    m = cell.m if cell.loss == "info-nce" else 0.0
    w = weight(positive, negatives, temperature=tau, margin=m)
    match cell.loss:
        case "info-nce-rescaled":
            return w / w.mean()
        case "dcl-rescaled":
            return w.mean().expand_as(w)
        case _:
            return w


def _mean_weight(positive: Tensor, negatives: Negatives, temperature: float) -> Tensor:
    return weight(positive.detach(), negatives.detach(), temperature=temperature).mean()
