"""Backbones: images to features."""

from itertools import pairwise
from typing import Literal

from torch import nn

from eqco.networks.batch_norm import MakeNorm


def conv5(channels: int, stride: int, norm: MakeNorm = nn.BatchNorm2d) -> nn.Module:
    """Five 3 x 3 convolutions for images of 8 to 32 pixels: (B, channels, H, W) to (B, 256).

    The widths are 16, 16, 32, 32, 64. Batch norm and ReLU follow each convolution. The third and
    the fifth have stride 2; ``stride`` is the first one's. Last, the mean over a 2 x 2 grid.
    """
    widths = [channels, 16, 16, 32, 32, 64]
    strides = [stride, 1, 2, 1, 2]
    layers: list[nn.Module] = []
    for (width_in, width_out), s in zip(pairwise(widths), strides, strict=True):
        layers += [
            nn.Conv2d(width_in, width_out, 3, stride=s, padding=1, bias=False),
            norm(width_out),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())


def resnet(
    name: Literal["resnet18", "resnet50"],
    channels: int,
    stem: Literal["small", "large"],
    norm: MakeNorm = nn.BatchNorm2d,
    zero_init_residual: bool = False,
) -> tuple[nn.Module, int]:
    """torchvision's ResNet without its classifier, and the number of its features.

    Args:
        name: ResNet-18 has 512 features, ResNet-50 2,048.
        channels: of the images.
        stem: "large" is ImageNet's (7 x 7, stride 2, max-pool), "small" is CIFAR's (3 x 3, stride
            1, no pool).
        norm: makes a batch norm from a number of channels.
        zero_init_residual: whether the last batch norm of each block starts at 0, so that the block
            is the identity (arXiv 1706.02677, section 5.1).
    """
    from torchvision import models

    network = getattr(models, name)(norm_layer=norm, zero_init_residual=zero_init_residual)
    if stem == "small":
        small_stem(network, channels)
    elif channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    features = network.fc.in_features
    network.fc = nn.Identity()
    return network, features


def small_stem(network: nn.Module, channels: int) -> None:
    """Give a ResNet of torchvision or timm CIFAR's stem: 3 x 3, stride 1, no pool."""
    network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
