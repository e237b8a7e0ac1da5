"""Which K of the other keys are a query's negatives."""

import torch
from torch import Tensor


def sample_others(n: int, k: int, generator: torch.Generator, *, shared: bool = True) -> Tensor:
    """Draw k of the n − 1 other keys of the batch for each of its n queries.

    Args:
        n: batch, n ≥ 2.
        k: negatives of each query, 1 ≤ k ≤ n − 1.
        generator: the source of randomness; its device is the result's.
        shared: one draw for all queries, as in EqCo's released code: a random subset of the n − 1
            off-diagonal columns, column j of query i being key j where j < i, else key j + 1.
            Otherwise a draw for each query.

    Returns:
        Indices of keys (n, k) int64, in each row distinct and none equal to the row's own.

    Raises:
        ValueError: when k is out of its range.
    """
    if not 1 <= k <= n - 1:
        raise ValueError(f"K must be in 1 … {n - 1} at batch {n}; got {k}")
    device = generator.device
    if shared:
        column = torch.randperm(n - 1, generator=generator, device=device)[:k]  # (k,)
    else:
        column = torch.rand(n, n - 1, generator=generator, device=device).argsort(dim=1)[:, :k]
    own = torch.arange(n, device=device)[:, None]  # (n, 1)
    return column + (column >= own)  # (n, k)
