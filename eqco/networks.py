"""Encoders: a backbone, whose features are evaluated, and a projector for the loss."""

from itertools import pairwise

from torch import Tensor, nn

from eqco.params import Network

CONV5_FEATURES = 256


def conv5(channels: int, stride: int) -> nn.Sequential:
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
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())


def projector(features: int, hidden: int, out: int) -> nn.Sequential:
    """SiMo's projector: two linear layers with batch norm after both, (B, features) to (B, out)."""
    return nn.Sequential(
        nn.Linear(features, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, out, bias=False),
        nn.BatchNorm1d(out),
    )


class Encoder(nn.Module):
    """A backbone (images to features) and a projector (features to embeddings).

    Args:
        network: the projector's widths and the first stride.
        channels: C of the images.
    """

    def __init__(self, network: Network, channels: int) -> None:
        super().__init__()
        self.backbone = conv5(channels, network.stride)
        hidden, out = network.projector
        self.projector = projector(CONV5_FEATURES, hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to embeddings (B, D), not normalised."""
        return self.projector(self.backbone(x))
