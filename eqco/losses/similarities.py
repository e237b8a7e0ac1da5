"""The similarities that every loss reads: their shapes, their precision, their sum."""

import torch
from torch import Tensor

from eqco.losses.shared_negatives import SharedNegatives

Negatives = Tensor | SharedNegatives


def logits(
    positive: Tensor, negatives: Negatives, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    """s0/τ (B,) and log S (B,), in float32 or better.

    Args:
        positive: s0 (B,).
        negatives: s_1 … s_K (B, K), K ≥ 1.
        temperature: τ > 0, a number, or a scalar tensor, which stays on its device unchecked.

    Raises:
        ValueError: if the shapes do not fit or τ is a number that is not positive.
    """
    pull = scaled_positive(positive, negatives, temperature)
    if isinstance(negatives, SharedNegatives):
        return pull, negatives.log_sum_exp(temperature)
    return pull, (negatives.to(pull.dtype) / temperature).logsumexp(dim=1)


def scaled_positive(positive: Tensor, negatives: Negatives, temperature: float | Tensor) -> Tensor:
    """s0/τ (B,), with the arguments, the precision and the errors of ``logits``."""
    shape = tuple(negatives.shape)
    if len(shape) != 2 or tuple(positive.shape) != shape[:1] or shape[1] < 1:
        raise ValueError(
            f"positive (B,) and negatives (B, K ≥ 1); got {tuple(positive.shape)}, {shape}"
        )
    tau = temperature if isinstance(temperature, Tensor) else above_zero(temperature)
    return positive.to(torch.promote_types(positive.dtype, torch.float32)) / tau


def first(negatives: Negatives, k: int) -> Negatives:
    """The first k of K negatives (B, k). They are a draw too, as K are drawn in random order.

    Raises:
        ValueError: if k > K.
    """
    if k > negatives.shape[1]:
        raise ValueError(f"k ≤ K; got {k=}, K = {negatives.shape[1]}")
    if isinstance(negatives, SharedNegatives):
        return SharedNegatives(negatives.q, negatives.keys[:k])
    return negatives[:, :k]


def above_zero(temperature: float) -> float:
    """The temperature; raises ValueError if it is not positive."""
    if not temperature > 0:
        raise ValueError(f"τ > 0; got {temperature}")
    return temperature
