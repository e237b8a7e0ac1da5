"""One family of contrastive losses: a weight W per anchor, on the gradient of the decoupled loss.

With ``s0`` the similarity of the positive, ``s_1 … s_K`` those of the negatives and
``S = Σ exp(s_i/τ)``, every loss here but DCLW has the gradient

    W · (1/τ) (−∇s0 + Σ softmax(s/τ)_i ∇s_i)

| loss | W |
| --- | --- |
| InfoNCE with margin m | S / (exp((s0 − m)/τ) + S) |
| EqCo, m = τ log(α/K) | 1 / (1 + (K/α) exp(s0/τ) / S) |
| DCL, m = ∞ | 1 |
| dual temperature | S_β / (exp(s0/τ_β) + S_β), without gradient |
| MACL, at τ_a in the place of τ | 1 |

Every function takes cosine similarities, ``positive`` s0 (B,) and ``negatives`` s_1 … s_K (B, K)
with K ≥ 1, and returns the loss of each anchor (B,) in nats, in float32 for inputs of lower
precision. If all anchors share their negatives, as with a queue, ``SharedNegatives`` stands for the
(B, K) similarities without computing them all. The functions raise ValueError if the shapes do not
fit or a temperature is not positive.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from eqco.losses.similarities import Negatives, above_zero, logits


def eqco_margin(negatives: int, alpha: float, temperature: float) -> float:
    """EqCo's margin m = τ log(α/K) (arXiv 2010.01929).

    Args:
        negatives: K, negatives of each query, at least 1.
        alpha: α > 0, the number of negatives to stand in for.
        temperature: τ > 0.

    Returns:
        The margin, in units of cosine similarity; 0 if K = α.

    Raises:
        ValueError: if an argument is out of its range.
    """
    if negatives < 1 or not alpha > 0 or not temperature > 0:
        raise ValueError(f"K ≥ 1, α > 0, τ > 0; got {negatives=}, {alpha=}, {temperature=}")
    return temperature * math.log(alpha / negatives)


def info_nce(
    positive: Tensor, negatives: Negatives, *, temperature: float, margin: float = 0.0
) -> Tensor:
    """InfoNCE with a margin on the positive (EqCo, arXiv 2010.01929, Eq. 1), per anchor.

        L = −log( exp((s0 − m)/τ) / (exp((s0 − m)/τ) + Σ_i exp(s_i/τ)) )

    For m = ∞ it is the decoupled loss, ``dcl``: the limit of L − m/τ, whose gradient is the limit
    of the gradients.

    Args:
        positive: s0 (B,).
        negatives: s_1 … s_K (B, K).
        temperature: τ > 0.
        margin: m, in units of similarity; 0 is plain InfoNCE.
    """
    pull, push = logits(positive, negatives, temperature)
    if margin == math.inf:
        return push - pull
    # −log σ(x), exact for large and small x, for which log(e^a + e^b) − a would cancel
    return -F.logsigmoid(pull - margin / temperature - push)


def dcl(positive: Tensor, negatives: Negatives, *, temperature: float) -> Tensor:
    """The decoupled loss, which may be negative: −s0/τ + log Σ_i exp(s_i/τ) (arXiv 2110.06848)."""
    return info_nce(positive, negatives, temperature=temperature, margin=math.inf)


def dclw(
    positive: Tensor,
    negatives: Negatives,
    *,
    temperature: float,
    sigma: float = 0.5,
    detach: bool = True,
) -> Tensor:
    """The decoupled loss with a weight on its positive term (DCLW, arXiv 2110.06848).

        L_i = −w_i s0_i/τ + log Σ_j exp(s_ij/τ),    w_i = 2 − B softmax_i(s0/σ)

    The mean of w over the batch is 1; a single w may be negative. Whether the gradient flows
    through w differs between published implementations.

    Args:
        positive: s0 (B,).
        negatives: s_1 … s_K (B, K).
        temperature: τ > 0.
        sigma: σ > 0.
        detach: whether w is a constant for the gradient.
    """
    pull, push = logits(positive, negatives, temperature)
    weight = 2 - len(positive) * (positive.to(pull.dtype) / above_zero(sigma)).softmax(
        dim=0
    )  # (B,)
    return push - (weight.detach() if detach else weight) * pull


def dual_temperature(
    positive: Tensor, negatives: Negatives, *, intra: float = 0.1, inter: float = 1.0
) -> Tensor:
    """The dual temperature (arXiv 2203.17248): InfoNCE at τ_α, each anchor weighted as at τ_β.

    Returns sg[W_β] · DCL_α. Its gradient is that of the paper's sg[W_β/W_α] · InfoNCE_α, without
    the division, which overflows if W_α is small. The values of the two forms differ, and neither
    form's values are comparable across τ_β.

    Args:
        positive: s0 (B,).
        negatives: s_1 … s_K (B, K).
        intra: τ_α > 0, how an anchor weighs its negatives; 0.1 in the authors' code.
        inter: τ_β > 0, how anchors are weighed against each other; 1 in the authors' code.
    """
    w = weight(positive.detach(), negatives.detach(), temperature=inter)
    return w * dcl(positive, negatives, temperature=intra)


def macl(
    positive: Tensor,
    negatives: Negatives,
    *,
    temperature: float,
    slope: float = 0.5,
    threshold: float = 0.0,
) -> Tensor:
    """The model-aware loss (MACL, arXiv 2207.07874): DCL at a temperature that follows alignment.

    Returns DCL at ``model_aware_temperature``, τ_a. Its gradient is that of the paper's
    sg[1/W] · InfoNCE at τ_a, without the division, which overflows if W is small. The values of the
    two forms differ.

    Args:
        positive: s0 (B,).
        negatives: s_1 … s_K (B, K).
        temperature: τ_0 > 0.
        slope: α of τ_a, in [0, 1].
        threshold: A_0 of τ_a, in [0, 1].
    """
    aware = model_aware_temperature(
        positive, temperature=temperature, slope=slope, threshold=threshold
    )
    pull, push = logits(positive, negatives, aware)
    return push - pull


def model_aware_temperature(
    positive: Tensor, *, temperature: float, slope: float, threshold: float
) -> Tensor:
    """MACL's τ_a = τ_0 (1 + α (A − A_0)), with A the mean of s0 over anchors (arXiv 2207.07874).

    Takes no gradient. It is positive for every A > 0.

    Args:
        positive: s0 (B,).
        temperature: τ_0 > 0.
        slope: α, in [0, 1]; 0 leaves τ_0.
        threshold: A_0, in [0, 1]: the alignment at which τ_a is τ_0.

    Returns:
        A scalar, in float32 or better.

    Raises:
        ValueError: if an argument is out of its range.
    """
    if not 0 <= slope <= 1 or not 0 <= threshold <= 1:
        raise ValueError(f"0 ≤ α ≤ 1, 0 ≤ A_0 ≤ 1; got {slope=}, {threshold=}")
    aligned = positive.detach().to(torch.promote_types(positive.dtype, torch.float32)).mean()
    return above_zero(temperature) * (1 + slope * (aligned - threshold))


def weight(
    positive: Tensor,
    negatives: Negatives,
    *,
    temperature: float,
    margin: float = 0.0,
    reads: Literal["both", "positive", "negatives"] = "both",
) -> Tensor:
    """W (B,) in (0, 1] of InfoNCE with a margin: how strongly an anchor pulls and pushes.

    Args:
        positive: s0 (B,).
        negatives: s_1 … s_K (B, K).
        temperature: τ > 0.
        margin: m, in units of similarity; 0 is plain InfoNCE.
        reads: the part of an anchor that its weight depends on. In place of the other, log S or
            s0, is the mean over anchors.
    """
    pull, push = logits(positive, negatives, temperature)
    if reads == "negatives":
        pull = pull.mean().expand_as(pull)
    if reads == "positive":
        push = push.mean().expand_as(push)
    return (
        torch.ones_like(pull)
        if margin == math.inf
        else (push - pull + margin / temperature).sigmoid()
    )
