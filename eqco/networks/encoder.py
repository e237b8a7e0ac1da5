"""Encoders: a backbone, whose features are evaluated, and a projector for the loss."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eqco.errors import InputError
from eqco.networks.backbones import make_backbone
from eqco.networks.batch_norm import MakeNorm, backbone_norm, projector_norm
from eqco.study.recipe import Network


class Encoder(nn.Module):
    """A backbone (images to features) and a projector (features to embeddings).

    Attributes:
        precision: dtype of the passes, by autocast; float32 unless it is set.
        features: F, width of the backbone's features.
        dim: D, width of the embeddings.
        hidden: width of the hidden layer of a predictor.
        groups: groups of the backbone's batch norm; several imitate as many GPUs.

    Args:
        network: the backbone, its stem, and the projector's widths.
        channels: C of the images.
        size: H and W of the images in pixels, which a timm backbone is made for; None: its own.

    Raises:
        InputError: if the backbone is of timm and cannot be made, or its batch norm not split.
    """

    def __init__(self, network: Network, channels: int, size: int | None = None) -> None:
        super().__init__()
        self.precision = torch.float32
        self.groups = network.batch_norm_groups
        self.backbone, self.features = make_backbone(
            network.backbone,
            channels,
            size,
            stem=network.stem,
            stride=network.stride,
            norm=backbone_norm(self.groups),
            zero_init_residual=network.zero_init_residual,
        )
        if self.groups > 1 and not any(isinstance(m, _BatchNorm) for m in self.backbone.modules()):
            raise InputError(
                f"network.batch_norm_groups: {self.groups}: {network.backbone} has no batch norm "
                "to split: must be 1"
            )
        self.hidden = network.predictor or network.projector[0]
        self.dim = network.projector[-1]
        widths = [self.features, *network.projector]
        self.projector = projector(widths, network.projector_norm, projector_norm())

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) to embeddings (B, D), not normalized."""
        with self.in_precision(x.device):
            return self.projector(self.backbone(x))

    def in_precision(self, device: torch.device) -> torch.autocast:
        """The context of a pass: operations that autocast allows run in ``precision``."""
        low = self.precision != torch.float32
        return torch.autocast(device.type, self.precision, enabled=low, cache_enabled=False)


def projector(
    widths: Sequence[int],
    norm: Literal["all", "hidden", "none"],
    layer: MakeNorm = nn.BatchNorm1d,
) -> nn.Sequential:
    """Linear layers with ReLU between them, (B, widths[0]) to (B, widths[-1]).

    Args:
        widths: of the input, the hidden layers and the output.
        norm: batch norm after all layers (SiMo, SimCLR, NNCLR), after the hidden ones, or after
            none (MoCo v2, SimCo). A layer that batch norm follows has no bias.
        layer: makes a batch norm from a number of features.
    """
    layers: list[nn.Module] = []
    for i, (width_in, width_out) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        normalised = norm == "all" or (norm == "hidden" and not last)
        layers.append(nn.Linear(width_in, width_out, bias=not normalised))
        layers += [layer(width_out)] if normalised else []
        layers += [] if last else [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
