"""The two statements of EqCo, from embeddings: mean gradient and bound against K."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from eqco.losses.family import eqco_margin
from eqco.losses.sampling import skip_own

KS = (1, 2, 4, 16, 64, 256, 512)


def curves(
    q: Tensor,
    k: Tensor,
    *,
    alpha: float,
    temperature: float,
    generator: Callable[[int], torch.Generator],
    draws: int = 32,
    ks: Sequence[int] = KS,
) -> list[dict[str, Any]]:
    """Gradient and bound against K, for InfoNCE (margin 0) and for EqCo's margin.

    The gradient is in closed form: a weight per query, times the gradient of the decoupled loss.

    Args:
        q: unit queries (M, D).
        k: unit keys (M, D); row i is the positive of query i.
        alpha: α of EqCo's margin.
        temperature: τ.
        generator: the source of randomness for each K.
        draws: draws of K negatives for every query, out of the M − 1 other keys.
        ks: the K; those of at least M are left out.

    Returns:
        A row for each margin (``0``, then ``eqco``) and each K, with these entries:

        - ``margin`` and ``negatives``: m and K.
        - ``gradient``: the mean over queries of ‖E ∂L/∂q‖, the expectation over draws.
        - ``relative``: ``gradient`` divided by that of the largest K.
        - ``norm``: the mean of ‖∂L/∂q‖. Few negatives make it larger: they are noisy.
        - ``bound``: log(1 + K exp(m/τ)) − L in nats. It is no bound if α > K and K is small.
    """
    scaled = q @ k.T / temperature  # (M, M)
    rows: dict[str, list[dict[str, Any]]] = {"0": [], "eqco": []}
    for negatives in [n for n in ks if n < len(q)]:
        margins = torch.tensor([0.0, eqco_margin(negatives, alpha, temperature)])  # (2,)
        shift = margins[:, None] / temperature  # (2, 1)
        mean_gradient = q.new_zeros(2, *q.shape)  # (2, M, D)
        norm = loss = q.new_zeros(2, dtype=torch.float64)
        source = generator(negatives)
        for _ in range(draws):  # both margins see the same draws
            columns = _draw(len(q), negatives, source)
            push, gradient = _decoupled(scaled, k, columns)
            x = scaled.diagonal() - shift - push  # (2, M), and L = −log σ(x)
            weight = torch.sigmoid(-x)  # (2, M)
            mean_gradient.addcmul_(weight[:, :, None], gradient, value=1 / (draws * temperature))
            norm = norm + (weight * gradient.norm(dim=1)).mean(dim=1) / (draws * temperature)
            loss = loss - F.logsigmoid(x).mean(dim=1) / draws
        bound = torch.log1p(negatives * shift[:, 0].double().exp()) - loss
        size = mean_gradient.norm(dim=2).mean(dim=1)  # (2,)
        for i, (margin, points) in enumerate(rows.items()):
            points.append(
                {
                    "margin": margin,
                    "negatives": negatives,
                    "gradient": float(size[i]),
                    "relative": 1.0,
                    "norm": float(norm[i]),
                    "bound": float(bound[i]),
                }
            )
    for points in rows.values():
        for point in points:
            point["relative"] = point["gradient"] / points[-1]["gradient"]
    return [point for points in rows.values() for point in points]


def _draw(anchors: int, negatives: int, generator: torch.Generator) -> Tensor:
    """K of the others of every anchor (M, K): those that ``sampling.sample`` draws, unsorted."""
    order = torch.rand(anchors, anchors - 1, generator=generator)
    columns = order.topk(negatives, largest=False, sorted=False).indices
    return skip_own(columns, torch.arange(anchors))


def _decoupled(scaled: Tensor, k: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """log S (M,), and τ times the gradient of the decoupled loss in the queries (M, D).

    The gradient of every other loss is its weight times this one; see ``losses.family``.

    Args:
        scaled: s/τ (M, M).
        k: keys (M, D).
        columns: of the K negatives of each query, (M, K).
    """
    s = scaled.gather(1, columns)  # (M, K)
    push = s.logsumexp(dim=1)
    softmax = torch.zeros_like(scaled).scatter_(1, columns, (s - push[:, None]).exp_())
    return push, softmax @ k - k
