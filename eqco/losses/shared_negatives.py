"""Log-sum-exp over negatives that all anchors share, without the tensor (A, K)."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 2048  # keys at a time: with 256 anchors 2 MiB of similarities, which a core's cache holds
GPU_CHUNK = 2**26  # similarities at a time on a GPU, 256 MiB: a chunk costs a dozen kernel starts


@dataclass(frozen=True)
class SharedNegatives:
    """The similarities (A, K) of A anchors with K keys that all anchors share, such as a queue.

    A loss takes them in place of the tensor (A, K). They are computed a few keys at a time: for
    K = 65,536 the whole tensor and its gradient would cost more than a small network.

    Attributes:
        q: anchors (A, D).
        keys: keys (K, D), without gradient.
    """

    q: Tensor
    keys: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """The shape (A, K) of the tensor that this stands for."""
        return len(self.q), len(self.keys)

    def log_sum_exp(self, temperature: float | Tensor) -> Tensor:
        """log Σ_i exp(s_i/τ) (A,), in float32 or better; differentiable once, in q."""
        return _LogSumExp.apply(self.q, self.keys, temperature)

    def mean(self) -> Tensor:
        """The mean of all similarities, a scalar."""
        return self.q.mean(dim=0) @ self.keys.mean(dim=0)

    def detach(self) -> "SharedNegatives":
        """The same similarities without gradient."""
        return SharedNegatives(self.q.detach(), self.keys)

    def dense(self) -> Tensor:
        """The whole tensor of similarities (A, K)."""
        return self.q @ self.keys.T


class _LogSumExp(torch.autograd.Function):
    """log Σ_i exp(q·k_i/τ) and its gradient softmax(q·k/τ)·k/τ in one pass over the keys.

    The gradient is attention with the keys as values. The running maximum is that of
    arXiv 1805.02867.
    """

    @staticmethod
    def forward(ctx, q: Tensor, keys: Tensor, temperature: float | Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        # autocast would turn the products to bfloat16 beside float32, which in-place ones refuse
        kind = q.device.type
        available = torch.amp.is_autocast_available(kind)  # not on the meta device
        with torch.autocast(kind, enabled=False) if available else nullcontext():
            log_sum, gradient = _log_sum_exp(q, keys, temperature, ctx.needs_input_grad[0])
        ctx.save_for_backward(gradient.to(q.dtype))
        return log_sum

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        (gradient,) = ctx.saved_tensors
        return upstream[:, None].to(gradient.dtype) * gradient, None, None


def _log_sum_exp(
    q: Tensor, keys: Tensor, temperature: float | Tensor, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """log Σ_i exp(q·k_i/τ) (A,) and its gradient in q (A, D), 0 unless it is asked for."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    scaled = q.to(dtype) / temperature  # (A, D)
    largest = scaled.new_full((len(q), 1), -torch.inf)
    total = scaled.new_zeros(len(q), 1)
    attended = torch.zeros_like(scaled)  # Σ exp(s_i/τ) k_i, (A, D)
    count = CHUNK if q.device.type == "cpu" else max(CHUNK, GPU_CHUNK // len(q))
    for chunk in keys.to(dtype).split(count):
        s = scaled @ chunk.T  # (A, c)
        previous, largest = largest, torch.maximum(largest, s.amax(dim=1, keepdim=True))
        s.sub_(largest).exp_()
        shrink = (previous - largest).exp()
        total = total * shrink + s.sum(dim=1, keepdim=True)
        if with_gradient:
            attended.mul_(shrink).addmm_(s, chunk)
    return (largest + total.log())[:, 0], attended / (total * temperature)
