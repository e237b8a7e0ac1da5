"""Which K candidates are an anchor's negatives."""

import torch
from torch import Tensor


def sample(
    anchors: int, candidates: int, k: int, generator: torch.Generator, *, shared: bool = True
) -> Tensor:
    """Draw k of the candidates of every anchor.

    Args:
        anchors: A, of the step.
        candidates: that each anchor has.
        k: negatives of each anchor, 1 ≤ k ≤ candidates.
        generator: the source of randomness; its device is the result's.
        shared: one draw for all anchors, as in EqCo's released code; otherwise a draw for each.

    Returns:
        Indices of candidates (A, k) int64, in each row distinct.

    Raises:
        ValueError: when k is out of its range.
    """
    if not 1 <= k <= candidates:
        raise ValueError(f"K must be in 1 … {candidates}; got {k}")
    device = generator.device
    if shared:
        drawn = torch.randperm(candidates, generator=generator, device=device)[:k]
        return drawn.expand(anchors, k)
    return torch.rand(anchors, candidates, generator=generator, device=device).argsort(dim=1)[:, :k]


def others(column: Tensor, own: Tensor) -> Tensor:
    """Columns of the n − 1 others as indices among all n: those from the own index on move up.

    Args:
        column: in 0 … n − 2, (A, k).
        own: each anchor's own index in 0 … n − 1, (A,).

    Returns:
        Indices (A, k), none equal to the row's own.
    """
    return column + (column >= own[:, None])
