"""Encoders: a backbone, whose features are evaluated, and a projector for the loss."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from eqco.errors import InputError
from eqco.runtime.ranks import batch_norm, ranks
from eqco.study.study import Network


class Encoder(nn.Module):
    """A backbone (images to features) and a projector (features to embeddings).

    Attributes:
        precision: of the passes, by autocast; float32 unless it is set to another.
        dim: D, width of the embeddings.
        hidden: width of the projector's first layer.
        groups: of the backbone's batch norm; more than one imitates as many GPUs.

    Args:
        network: which backbone, its stem, and the projector's widths.
        channels: C of the images.
    """

    def __init__(self, network: Network, channels: int) -> None:
        super().__init__()
        self.precision = torch.float32
        self.groups = network.batch_norm_groups
        norm = self._norm()
        if network.backbone == "conv5":
            self.backbone, features = conv5(channels, network.stride, norm), 256
        else:
            self.backbone, features = resnet(network.backbone, channels, network.stem, norm)
        self.hidden, self.dim = network.projector[0], network.projector[-1]
        plain = batch_norm() if ranks() > 1 else nn.BatchNorm1d
        self.projector = projector([features, *network.projector], network.projector_norm, plain)

    def _norm(self) -> type[nn.Module] | partial:
        """The backbone's batch norm: over the whole batch, or over groups, shared by the ranks."""
        if self.groups == 1:
            return batch_norm() if ranks() > 1 else nn.BatchNorm2d
        own, left = divmod(self.groups, ranks())
        if left:
            raise InputError(
                f"network.batch_norm_groups: {self.groups}: must be a multiple of {ranks()} ranks"
            )
        return partial(GroupedBatchNorm2d, groups=own)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to embeddings (B, D), not normalised."""
        with self.in_precision(x.device):
            return self.projector(self.backbone(x))

    def in_precision(self, device: torch.device) -> torch.autocast:
        """The context of a pass: operations that may be of ``precision`` are."""
        low = self.precision != torch.float32
        return torch.autocast(device.type, self.precision, enabled=low, cache_enabled=False)


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over each of several interleaved groups of the batch: one device as if several.

    The running statistics are the mean over the groups. In eval mode it is plain batch norm. The
    batch must be a multiple of ``groups``. (The split batch norm of MoCo's CIFAR-10 notebook.)
    """

    def __init__(self, num_features: int, groups: int) -> None:
        super().__init__(num_features)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        b, c, h, w = x.shape
        # a group's channels stand beside the others': (B / groups, groups · C, H, W)
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


def conv5(
    channels: int, stride: int, norm: type[nn.Module] | partial = nn.BatchNorm2d
) -> nn.Module:
    """Five 3 x 3 convolutions for images of 8 to 32 pixels: (B, channels, H, W) to (B, 256).

    Widths 16, 16, 32, 32, 64 with batch norm and ReLU, every other one with stride 2, then the
    mean over a 2 x 2 grid. ``stride`` is the first convolution's.
    """
    widths = [channels, 16, 16, 32, 32, 64]
    strides = [stride, 1, 2, 1, 2]
    layers: list[nn.Module] = []
    for (before, after), s in zip(pairwise(widths), strides, strict=True):
        layers += [
            nn.Conv2d(before, after, 3, stride=s, padding=1, bias=False),
            norm(after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())


def resnet(
    name: Literal["resnet18", "resnet50"],
    channels: int,
    stem: Literal["small", "large"],
    norm: type[nn.Module] | partial = nn.BatchNorm2d,
) -> tuple[nn.Module, int]:
    """torchvision's ResNet without its classifier, and the number of its features.

    Args:
        name: ResNet-18 has 512 features, ResNet-50 2,048.
        channels: of the images.
        stem: "large" is ImageNet's (7 x 7, stride 2, max-pool), "small" is CIFAR's (3 x 3, stride
            1, no pool).
        norm: makes a batch norm from a number of channels.
    """
    from torchvision import models

    network = getattr(models, name)(norm_layer=norm)
    if stem == "small":
        network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    features = network.fc.in_features
    network.fc = nn.Identity()
    return network, features


def projector(
    widths: Sequence[int],
    norm: Literal["all", "hidden", "none"],
    layer: type[nn.Module] = nn.BatchNorm1d,
) -> nn.Sequential:
    """Linear layers with ReLU between them, (B, widths[0]) to (B, widths[-1]).

    Args:
        widths: of the input, the hidden layers and the output.
        norm: batch norm after all layers (SiMo, SimCLR, NNCLR), after the hidden ones, or after
            none (MoCo v2, SimCo). A layer has a bias where no batch norm follows.
        layer: makes a batch norm from a number of features.
    """
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        normed = norm == "all" or (norm == "hidden" and not last)
        layers.append(nn.Linear(before, after, bias=not normed))
        layers += [layer(after)] if normed else []
        layers += [] if last else [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
