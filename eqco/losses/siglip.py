"""SigLIP's sigmoid loss, on cosine similarities: every pair is classified apart from the others."""

import math

from torch import Tensor
from torch.nn import functional as F

from eqco.losses.shared_negatives import SharedNegatives
from eqco.losses.similarities import Negatives, scaled_positive


def siglip(
    positive: Tensor,
    negatives: Negatives,
    *,
    temperature: float,
    bias: float = -10.0,
    margin: float = 0.0,
) -> Tensor:
    """SigLIP's sigmoid loss (arXiv 2303.15343) per anchor, its negatives' sum times α/K.

        L = −log σ(s0/τ + b) − (α/K) Σ_i log σ(−s_i/τ − b),   α = K exp(m/τ)

    No pair's term depends on another pair. So with EqCo's margin, α fixed, the mean of L and of its
    gradient over draws of negatives is the same for every K. The loss is no weight W times the
    decoupled gradient: an anchor pulls by σ(−s0/τ − b), and pushes its negatives by
    (α/K) σ(s_i/τ + b). At b = −log α the pull is α/(exp(s0/τ) + α), which is EqCo's W where the
    mean of exp(s_i/τ) is 1.

    The source learns 1/τ from 10 on and b from −10 on; here both stay, as τ does for every loss.
    Of ``SharedNegatives`` the whole tensor (B, K) is made.

    Args:
        positive: s0 (B,).
        negatives: s_1 … s_K (B, K).
        temperature: τ > 0.
        bias: b.
        margin: m, finite, in units of similarity; 0, where α = K, is the source's plain sum.

    Returns:
        The loss of each anchor (B,) in nats, in float32 or better.

    Raises:
        ValueError: if the shapes do not fit, τ is not positive or m is not finite.
    """
    if not math.isfinite(margin):
        raise ValueError(f"a finite margin; got {margin=}")
    pull = scaled_positive(positive, negatives, temperature)  # (B,)
    s = negatives.dense() if isinstance(negatives, SharedNegatives) else negatives  # (B, K)
    push = F.softplus(s.to(pull.dtype) / temperature + bias).sum(dim=1)
    return F.softplus(-pull - bias) + math.exp(margin / temperature) * push
