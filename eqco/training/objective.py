"""The loss of a cell: from the similarities of anchors to a loss and a weight W per anchor."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from eqco.losses import (
    Negatives,
    SogCLR,
    dcl,
    dclw,
    dual_temperature,
    info_nce,
    macl,
    siglip,
    weight,
)
from eqco.losses.family import model_aware_temperature
from eqco.losses.similarities import first
from eqco.study.cell import Cell
from eqco.study.fields import WITH_MARGIN, Loss
from eqco.study.recipe import LossSettings

NO_WEIGHT: tuple[Loss, ...] = ("dclw", "siglip", "sogclr")
Objective = Callable[[Tensor, Negatives], Tensor]  # (A,), (A, K) -> (A,)


def objective(cell: Cell, settings: LossSettings, images: int = 0) -> Objective | SogCLR:
    """The loss per anchor, whose mean the cell minimises.

    The controls are InfoNCE divided by one number per step, and DCL times another weight per
    anchor, both without gradient: ``weights`` says which. They tell apart where a gain comes from:
    the size of the gradient, the difference between the weights of anchors, or the right anchors
    having them.

    Args:
        cell: the loss, its margin and τ.
        settings: of the losses.
        images: the number of training images, of which SogCLR remembers each.
    """
    tau = cell.temperature
    match cell.loss:
        case "info-nce":
            return partial(info_nce, temperature=tau, margin=cell.m)
        case "dclw":
            return partial(dclw, temperature=tau, sigma=settings.sigma, detach=settings.detach)
        case "dual-temperature":
            return partial(dual_temperature, intra=tau, inter=settings.inter)
        case "macl":
            return partial(
                macl, temperature=tau, slope=settings.slope, threshold=settings.threshold
            )
        case "siglip":
            return partial(siglip, temperature=tau, bias=settings.bias, margin=cell.m)
        case "sogclr":
            return SogCLR(images, temperature=tau, gamma=settings.gamma)
        case "info-nce-rescaled" | "info-nce-rescaled-rms":
            size = _rms if cell.loss.endswith("rms") else Tensor.mean
            return lambda s0, s: (
                info_nce(s0, s, temperature=tau)
                / size(weight(s0.detach(), s.detach(), temperature=tau))
            )
        case _:

            def weighted(s0: Tensor, s: Negatives) -> Tensor:
                w = weights(cell, settings, s0.detach(), s.detach())
                assert w is not None
                return w * dcl(s0, first(s, cell.negatives), temperature=tau)

            return weighted


def draws(cell: Cell, settings: LossSettings) -> int:
    """The negatives that a method draws for each anchor: K, or K_s if the loss reads more."""
    reads_more = cell.loss == "dcl-by-scalar-negatives"
    return max(cell.negatives, settings.scalar_negatives or 0) if reads_more else cell.negatives


def weights(
    cell: Cell, settings: LossSettings, positive: Tensor, negatives: Negatives
) -> Tensor | None:
    """The weight W (A,) of the cell's loss, the factor of its gradient relative to DCL's.

    That of the controls, where W is InfoNCE's weight, of the last four with the cell's margin:

    | loss | W of the loss |
    | --- | --- |
    | ``info-nce-rescaled`` | W / mean W: the weights differ as InfoNCE's, their mean is 1 |
    | ``info-nce-rescaled-rms`` | W / rms W: the gradient has DCL's norm, if noise dominates it |
    | ``dcl-rescaled`` | mean W: all weigh the same, as much as by InfoNCE |
    | ``dcl-rescaled-rms`` | rms W: the gradient has InfoNCE's norm, if noise dominates it |
    | ``dcl-constant`` | ``settings.constant`` |
    | ``dcl-rolled`` | the W of the anchor before: the same weights on the wrong anchors |
    | ``dcl-by-negatives`` | W at the mean s0: the part that the negatives decide |
    | ``dcl-by-positive`` | W at the mean log S: the part that the positive decides |
    | ``dcl-by-scalar-negatives`` | W of the first K_s negatives; the gradient's direction is of K |

    Means are over the A anchors of the step; rms W = mean W · √(1 + cv²).

    Args:
        cell: the loss, its margin and τ.
        settings: τ_β of the dual temperature, α and A_0 of MACL, the constant, K_s.
        positive: s0 (A,).
        negatives: s_1 … s_K (A, K), or more of them: see ``draws``.

    Returns:
        The weights in float32 or better. MACL's is τ/τ_a: at its temperature τ_a it has the
        gradient of DCL. None for a loss that pulls with another weight than it pushes: those of
        NO_WEIGHT.
    """
    if cell.loss in NO_WEIGHT:
        return None
    if cell.loss == "dual-temperature":
        return weight(positive, negatives, temperature=settings.inter)
    if cell.loss == "macl":
        tau = cell.temperature
        aware = model_aware_temperature(
            positive, temperature=tau, slope=settings.slope, threshold=settings.threshold
        )
        return (tau / aware).expand_as(positive)
    if cell.loss == "dcl-by-scalar-negatives":
        assert settings.scalar_negatives, "a study with this loss has loss.scalar_negatives"
        negatives = first(negatives, settings.scalar_negatives)
        cell = cell.model_copy(update={"negatives": settings.scalar_negatives})  # for EqCo's margin
    m = cell.m if cell.loss in WITH_MARGIN else 0.0
    w_of = partial(weight, positive, negatives, temperature=cell.temperature, margin=m)
    w = w_of()
    match cell.loss:
        case "info-nce-rescaled":
            return w / w.mean()
        case "info-nce-rescaled-rms":
            return w / _rms(w)
        case "dcl-rescaled":
            return w.mean().expand_as(w)
        case "dcl-rescaled-rms":
            return _rms(w).expand_as(w)
        case "dcl-constant":
            return w.new_full(w.shape, settings.constant)
        case "dcl-rolled":
            return w.roll(1)
        case "dcl-by-negatives":
            return w_of(reads="negatives")
        case "dcl-by-positive":
            return w_of(reads="positive")
        case _:
            return w


def _rms(w: Tensor) -> Tensor:
    return w.square().mean().sqrt()
