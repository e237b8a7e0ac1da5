"""InfoNCE with a margin, and the margin that makes it equivalent across numbers of negatives.

With ``s0`` the similarity of the positive, ``s_1 … s_K`` those of the negatives,
``S = Σ exp(s_i/τ)`` and ``m`` the margin, every loss here has the gradient

    W · (1/τ) (−∇s0 + Σ softmax(s/τ)_i ∇s_i),    W = S / (exp((s0 − m)/τ) + S)

so a margin changes one weight an anchor: W is small for m = 0 and few negatives, and 1 for m = ∞.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def eqco_margin(negatives: int, alpha: float, temperature: float) -> float:
    """EqCo's margin m = τ log(α/K) (arXiv 2010.01929).

    Args:
        negatives: K, negatives of each query, at least 1.
        alpha: α > 0, the number of negatives to stand in for.
        temperature: τ > 0.

    Returns:
        The margin, in units of cosine similarity; 0 where K = α.

    Raises:
        ValueError: when an argument is out of its range.
    """
    if negatives < 1 or not alpha > 0 or not temperature > 0:
        raise ValueError(f"K ≥ 1, α > 0, τ > 0; got {negatives=}, {alpha=}, {temperature=}")
    return temperature * math.log(alpha / negatives)


def info_nce(
    positive: Tensor, negatives: Tensor, *, temperature: float, margin: float = 0.0
) -> Tensor:
    """InfoNCE with a margin on the positive (EqCo, arXiv 2010.01929, Eq. 1), per anchor.

        L = −log( exp((s0 − m)/τ) / (exp((s0 − m)/τ) + Σ_i exp(s_i/τ)) )

    For m = ∞ it is the decoupled loss −s0/τ + log Σ_i exp(s_i/τ) (DCL, arXiv 2110.06848): the limit
    of L − m/τ, whose gradient is the limit of the gradients.

    Args:
        positive: s0, cosine similarities (B,).
        negatives: s_1 … s_K, cosine similarities (B, K), K ≥ 1.
        temperature: τ > 0.
        margin: m, in units of similarity; 0 is plain InfoNCE.

    Returns:
        The loss of each anchor (B,), in nats; in float32 for inputs of lower precision.

    Raises:
        ValueError: when the shapes do not fit or τ is not positive.
    """
    if negatives.ndim != 2 or positive.shape != negatives.shape[:1] or negatives.shape[1] < 1:
        raise ValueError(
            f"positive (B,) and negatives (B, K ≥ 1); got {tuple(positive.shape)}, "
            f"{tuple(negatives.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"τ > 0; got {temperature}")
    dtype = torch.promote_types(positive.dtype, torch.float32)
    pull = positive.to(dtype) / temperature  # (B,)
    push = (negatives.to(dtype) / temperature).logsumexp(dim=1)  # (B,) = log S
    if margin == math.inf:
        return push - pull
    # −log σ(x), exact for large and small x, where log(e^a + e^b) − a would cancel
    return -F.logsigmoid(pull - margin / temperature - push)
