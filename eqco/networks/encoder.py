"""Encoders: a backbone, whose features are evaluated, and a projector for the loss."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from eqco.networks.backbones import conv5, resnet
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
    """

    def __init__(self, network: Network, channels: int) -> None:
        super().__init__()
        self.precision = torch.float32
        self.groups = network.batch_norm_groups
        norm = backbone_norm(self.groups)
        if network.backbone == "conv5":
            self.backbone, self.features = conv5(channels, network.stride, norm), 256
        else:
            zero = network.zero_init_residual
            made = resnet(network.backbone, channels, network.stem, norm, zero)
            self.backbone, self.features = made
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
