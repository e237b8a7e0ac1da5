"""A linear classifier that is trained beside the encoder: the protocol ``linear-online``."""

import torch
from torch import Tensor, nn

from eqco.evaluation.linear import sgd_step, with_one
from eqco.networks.encoder import Encoder
from eqco.runtime.ranks import gather, ranks


class OnlineClassifier(nn.Module):
    """Logistic regression on the features that the encoder makes of each step's views.

    By SGD with momentum and no weight decay, from zero. The features have no gradient, and the
    classifier no part in the method's loss: the encoder is the same with and without it.

    Attributes:
        weight: (Y, F + 1); the last column is the bias.
        velocity: of the momentum (Y, F + 1).
        features: of the passes since they were last cleared, (n, F) of one view or (2n, F) of both.

    Args:
        encoder: the encoder, of which each pass is remembered.
        classes: Y.
    """

    weight: Tensor
    velocity: Tensor

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        for name in ("weight", "velocity"):
            self.register_buffer(name, torch.zeros(classes, encoder.features + 1))
        self.features: list[Tensor] = []
        encoder.backbone.register_forward_hook(self._remember)

    def _remember(self, backbone: nn.Module, images: tuple[Tensor], features: Tensor) -> None:
        self.features.append(features.detach())

    @torch.no_grad()
    def step(self, labels: Tensor, lr: float) -> None:
        """Do a step on ``features``.

        Args:
            labels: of the whole batch (N,); each rank has the features of its share.
            lr: learning rate.
        """
        n = len(labels) // ranks()
        views = [view for features in self.features for view in features.split(n)]  # (n, F) each
        x = torch.cat([gather(view) for view in views]).to(self.weight.dtype)  # (V N, F)
        y = x.new_zeros(len(x), len(self.weight))  # (V N, Y)
        y.scatter_(1, labels.repeat(len(views))[:, None], 1)  # one_hot would wait for a number
        sgd_step(self.weight, self.velocity, with_one(x), y, self.weight.new_full((), lr))
