"""An anchor's negatives: which K candidates they are, and the similarities of those all share."""

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 2048  # keys at a time: with 256 anchors 2 MiB of similarities, which a core's cache holds


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


@dataclass(frozen=True)
class SharedNegatives:
    """The similarities (A, K) of A anchors with K keys that all of them share, as a queue's.

    They stand in for the tensor of similarities that a loss reads, and are made a few keys at a
    time: for K = 65,536 the whole tensor and its gradient would cost more than a small network.

    Attributes:
        q: anchors (A, D).
        keys: (K, D), which take no gradient.
    """

    q: Tensor
    keys: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(A, K)."""
        return len(self.q), len(self.keys)

    def log_sum_exp(self, temperature: float) -> Tensor:
        """log Σ_i exp(s_i/τ) (A,), in float32 or better; differentiable once, in q."""
        return _LogSumExp.apply(self.q, self.keys, temperature)

    def mean(self) -> Tensor:
        """Of all similarities, a scalar."""
        return self.q.mean(dim=0) @ self.keys.mean(dim=0)

    def detach(self) -> "SharedNegatives":
        """The same without gradient."""
        return SharedNegatives(self.q.detach(), self.keys)

    def dense(self) -> Tensor:
        """The whole tensor of similarities (A, K)."""
        return self.q @ self.keys.T


class _LogSumExp(torch.autograd.Function):
    """log Σ_i exp(q·k_i/τ) and its gradient softmax(q·k/τ)·k/τ in one pass over the keys.

    As attention with the keys as values too; the running maximum of arXiv 1805.02867.
    """

    @staticmethod
    def forward(ctx, q: Tensor, keys: Tensor, temperature: float) -> Tensor:  # type: ignore[no-untyped-def]
        dtype = torch.promote_types(q.dtype, torch.float32)
        scaled = q.to(dtype) / temperature  # (A, D)
        largest = scaled.new_full((len(q), 1), -torch.inf)
        total = scaled.new_zeros(len(q), 1)
        attended = torch.zeros_like(scaled)  # Σ exp(s_i/τ) k_i, (A, D)
        for chunk in keys.to(dtype).split(CHUNK):
            s = scaled @ chunk.T  # (A, c)
            before, largest = largest, torch.maximum(largest, s.amax(dim=1, keepdim=True))
            s.sub_(largest).exp_()
            shrink = (before - largest).exp()
            total = total * shrink + s.sum(dim=1, keepdim=True)
            if ctx.needs_input_grad[0]:
                attended.mul_(shrink).addmm_(s, chunk)
        ctx.save_for_backward((attended / (total * temperature)).to(q.dtype))
        return (largest + total.log())[:, 0]

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        (gradient,) = ctx.saved_tensors
        return upstream[:, None].to(gradient.dtype) * gradient, None, None
