"""The similarities that every loss reads: their shapes, their precision, their sum."""

import torch
from torch import Tensor
from torch.nn import functional as F

from eqco.losses.sampling import skip_own
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


def l2_normalize(x: Tensor) -> Tensor:
    """Scale the rows of x (N, D) to length 1, in float32 or better."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)))


def of_both_views(z: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Similarities of all 2N views as anchors, SimCLR's: with the other view, with other images'.

    Args:
        z: unit embeddings (2N, D), those of view 1 first.
        column: the negatives of each anchor (2N, K), in 0 … 2(N − 1) − 1: columns 0 … N − 2 are
            view 1 of the other images, the rest view 2.

    Returns:
        s0 (2N,) and s_1 … s_K (2N, K), with gradient on both sides.
    """
    n = len(z) // 2
    s = z @ z.T  # (2N, 2N)
    view, image = column // (n - 1), column % (n - 1)
    own = torch.arange(2 * n, device=s.device) % n  # (2N,)
    positive = torch.cat([s.diagonal(n), s.diagonal(-n)])  # (2N,)
    return positive, s.gather(1, view * n + skip_own(image, own))


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
