"""Draw K of the candidates as an anchor's negatives: once for a step, or once per anchor."""

import torch
from torch import Tensor


def sample(
    anchors: int, candidates: int, k: int, generator: torch.Generator, *, shared: bool = True
) -> Tensor:
    """Draw k of the candidates of every anchor, without replacement.

    Args:
        anchors: A.
        candidates: the number of candidates of each anchor.
        k: negatives of each anchor, 1 ≤ k ≤ candidates.
        generator: the source of randomness; its device is the result's.
        shared: one draw for all anchors, as in EqCo's released code; otherwise a draw per anchor.

    Returns:
        Indices of candidates (A, k) int64, distinct in each row.

    Raises:
        ValueError: if k is out of its range.
    """
    if not 1 <= k <= candidates:
        raise ValueError(f"K must be in 1 … {candidates}; got {k}")
    device = generator.device
    if shared:
        index = torch.randperm(candidates, generator=generator, device=device)[:k]
        return index.expand(anchors, k)
    return torch.rand(anchors, candidates, generator=generator, device=device).argsort(dim=1)[:, :k]


def skip_own(column: Tensor, own: Tensor) -> Tensor:
    """Turn indices among the n − 1 others into indices among all n, by skipping the own index.

    Args:
        column: (A, k), in 0 … n − 2.
        own: (A,), the index of each anchor in 0 … n − 1.

    Returns:
        Indices (A, k), none equal to its row's own index.
    """
    return column + (column >= own[:, None])
