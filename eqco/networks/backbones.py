"""Backbones: images to features."""

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import nn

from eqco.errors import InputError
from eqco.networks.batch_norm import MakeNorm, replace_batch_norm
from eqco.runtime.extras import extra
from eqco.study.fields import TIMM


def make_backbone(
    name: str,
    channels: int,
    size: int | None = None,
    *,
    stem: Literal["small", "large"] = "large",
    stride: int = 2,
    norm: MakeNorm = nn.BatchNorm2d,
    zero_init_residual: bool = False,
    key: str = "network.backbone",
) -> tuple[nn.Module, int]:
    """The backbone of a name, of random weights, and F, the number of its features.

    It maps images (B, C, H, W) to features (B, F).

    Args:
        name: conv5, resnet18, resnet50, or timm/<model>.
        channels: C.
        size: H and W in pixels, which a timm model may be made for; None: the model's own.
        stem: of ``resnet``.
        stride: of ``conv5``.
        norm: makes a batch norm from a number of channels.
        zero_init_residual: of ``resnet``.
        key: what gives the name, for messages.

    Raises:
        InputError: if timm is not installed, has no such model, or the model takes no such images.
    """
    if name.startswith(TIMM):
        return timm_model(name, channels, size, norm, key)
    if name == "conv5":
        return conv5(channels, stride, norm), 256
    return resnet(name, channels, stem, norm, zero_init_residual)


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
    name: str,
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


def timm_model(
    name: str, channels: int, size: int | None, norm: MakeNorm, key: str
) -> tuple[nn.Module, int]:
    """A model of timm without its classifier, and the number of its features, as ``make_backbone``.

    The number is measured: a pass without memory or arithmetic, on the meta device, tells the shape
    of the features, and whether the model takes such images.
    """
    timm = extra("timm", "timm", f"{key}: {name}")
    model, options = timm_options(name, channels, size, key)
    side = size or timm.get_pretrained_cfg(model).input_size[-1]
    try:
        with torch.device("meta"), torch.no_grad():
            sketch = timm.create_model(model, **options).eval()
            shape = sketch(torch.empty(1, channels, side, side)).shape
        if len(shape) != 2:
            raise ValueError(f"its features have the shape {tuple(shape)}, not (B, F)")
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        images = f"images of {channels} x {side} x {side}"
        raise InputError(f"{key}: {name}: gives no features of {images}: {reason}") from None
    network = timm.create_model(model, **options)
    _without_dropout(network)
    replace_batch_norm(network, norm, f"{key}: {name}")
    return network, shape[1]


def _without_dropout(network: nn.Module) -> None:
    """Switch dropout and drop path off, which some models of timm have.

    They draw from torch's global random state: a training that is resumed, or shared by ranks in
    another way, would not be the same.
    """
    for module in network.modules():
        for probability in ("p", "drop_prob"):
            if "Drop" in type(module).__name__ and hasattr(module, probability):
                setattr(module, probability, 0.0)


def timm_options(
    name: str, channels: int, size: int | None, key: str = "network.backbone"
) -> tuple[str, dict[str, Any]]:
    """The arguments of ``timm.create_model`` for a backbone: the model's name, and the others.

    A model whose images have a fixed size, as a ViT's, is made for ``size``.

    Raises:
        InputError: if timm has no such model.
    """
    timm, model = extra("timm", "timm", f"{key}: {name}"), name.removeprefix(TIMM)
    if not timm.is_model(model):
        allowed = "allowed are the names of timm.list_models()"
        raise InputError(f"{key}: {name}: timm {timm.__version__} has no such model; {allowed}")
    fixed = size is not None and timm.get_pretrained_cfg(model).fixed_input_size
    return model, {"num_classes": 0, "in_chans": channels} | ({"img_size": size} if fixed else {})
