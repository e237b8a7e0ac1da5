"""Batch norm over groups of a batch, and over the shares of several ranks."""

from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eqco.errors import InputError
from eqco.runtime.ranks import ranks

MakeNorm = type[nn.Module] | partial  # makes a batch norm from a number of channels


def backbone_norm(groups: int) -> MakeNorm:
    """The batch norm of a backbone: over the whole batch, or over ``groups`` of it.

    Raises:
        InputError: if the groups cannot be shared by the ranks.
    """
    if groups == 1:
        return synchronised_norm() if ranks() > 1 else nn.BatchNorm2d
    groups_of_rank, rest = divmod(groups, ranks())
    if rest:
        raise InputError(
            f"network.batch_norm_groups: {groups}: must be a multiple of {ranks()} ranks"
        )
    return partial(GroupedBatchNorm2d, groups=groups_of_rank)


def projector_norm() -> MakeNorm:
    """The batch norm of a projector: over the whole batch."""
    return synchronised_norm() if ranks() > 1 else nn.BatchNorm1d


def synchronised_norm() -> type[nn.Module]:
    """The batch-norm class that normalises over all ranks.

    On GPUs torch's ``SyncBatchNorm``; on CPUs, which torch's does not support, ours.
    """
    return nn.SyncBatchNorm if dist.get_backend() == "nccl" else SyncBatchNorm


def replace_batch_norm(network: nn.Module, norm: MakeNorm, name: str) -> None:
    """Give a network that is made with plain batch norm another one, with the same settings.

    timm's batch norm with an activation keeps the activation. The names of parameters stay.

    Args:
        network: changed in place.
        norm: makes a batch norm from a number of channels.
        name: the network's, for the message.

    Raises:
        InputError: if there is a batch norm that is not over images, or one without weights.
    """
    if norm is nn.BatchNorm2d:
        return
    for module in list(network.modules()):
        for place, plain in list(module.named_children()):
            if not isinstance(plain, _BatchNorm):
                continue
            if not isinstance(plain, nn.BatchNorm2d) or not plain.affine:
                kind = type(plain).__name__
                allowed = "is trained on one GPU alone, with network.batch_norm_groups of 1"
                raise InputError(f"{name}: has a {kind}, which cannot be shared: {allowed}")
            made = norm(plain.num_features)
            made.load_state_dict(plain.state_dict())
            made.eps, made.momentum = plain.eps, plain.momentum
            for part, child in plain.named_children():  # timm's BatchNormAct2d: drop, act
                made.add_module(part, child)
            if hasattr(plain, "act"):
                made.register_forward_hook(lambda norm, x, y: norm.act(norm.drop(y)))
            setattr(module, place, made)


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over each of several interleaved groups of the batch: one GPU acts as several.

    The running statistics are the mean over the groups. In eval mode it is plain batch norm. The
    batch must be a multiple of ``groups``. (The split batch norm of MoCo's CIFAR-10 notebook.)
    """

    def __init__(self, num_features: int, groups: int) -> None:
        super().__init__(num_features)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (B, C, H, W) per group and channel."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        b, c, h, w = x.shape
        # groups side by side, as if they were channels: (B / groups, groups · C, H, W)
        mean, var = (s.repeat(self.groups) for s in (self.running_mean, self.running_var))
        y = nn.functional.batch_norm(
            x.reshape(b // self.groups, self.groups * c, h, w),
            mean,
            var,
            self.weight.repeat(self.groups),
            self.bias.repeat(self.groups),
            training=True,
            momentum=self.momentum or 0.0,
            eps=self.eps,
        )
        self.running_mean.copy_(mean.view(self.groups, c).mean(dim=0))
        self.running_var.copy_(var.view(self.groups, c).mean(dim=0))
        return y.reshape(b, c, h, w)


class SyncBatchNorm(_BatchNorm):
    """Batch norm over the shares of all ranks, on CPUs."""

    def _check_input_dim(self, x: Tensor) -> None:
        """Accept any number of dimensions; the base class leaves the check to its subclasses."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (B / ranks, C, ...) per channel, over all ranks."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        axes = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        count = x.numel() // x.shape[1] * ranks()
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = _Sum.apply(x.sum(axes)) / count  # (C,)
        x = x - mean.view(shape)
        var = _Sum.apply(x.square().sum(axes)) / count  # (C,)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(var * count / (count - 1), self.momentum or 0.0)
            self.num_batches_tracked += 1
        scale = self.weight * (var + self.eps).rsqrt()
        return x * scale.view(shape) + self.bias.view(shape)


class _Sum(torch.autograd.Function):
    """The sum over all ranks of a value, and in the backward pass of its gradient."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return _Sum.apply(gradient)


@torch.no_grad()
def average_statistics(module: nn.Module) -> None:
    """Give every rank the mean of all ranks' running statistics of batch norm.

    Batch norm that is not synchronised has statistics of its own on each rank. A running mean is
    linear, so their mean is what one process with all groups of the batch would have.
    """
    if ranks() == 1:
        return
    for norm in module.modules():
        if isinstance(norm, _BatchNorm):
            for statistic in (norm.running_mean, norm.running_var):
                assert statistic is not None
                dist.all_reduce(statistic)
                statistic /= ranks()
