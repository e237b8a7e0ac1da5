"""SogCLR's loss: of every image it remembers a moving average of its negatives' mean."""

import math

import torch
from torch import Tensor, nn

from eqco.losses.similarities import Negatives, logits


class SogCLR(nn.Module):
    """The loss of SogCLR (arXiv 2202.12387), as in the authors' code (LibAUC).

    M is the mean of exp(s_j/τ) over the K negatives of an anchor of image i, u_i is remembered:

        u = (1 − γ) u_i + γ M,   L = −s0/τ + log(K u),   u_i ← mean of u over the image's anchors

    The gradient is that of −s0/τ + sg[M/u] log S: a pull of 1, and pushes of sg[exp(s_j/τ)/(K u)].
    So it has no weight W. DCL divides by M, and its mean gradient over draws depends on K. If u is
    the mean over all candidates, that of this loss does not. At an image's first visit u is M, and
    the loss is DCL, as it always is for γ = 1.

    Args:
        images: the number of images to remember.
        temperature: τ > 0.
        gamma: γ, in (0, 1]; 0.9 in the authors' code.

    Attributes:
        log_u: log u_i of each image (images,); −∞ before its first visit.

    Raises:
        ValueError: if γ is out of its range.
    """

    log_u: Tensor

    def __init__(self, images: int, *, temperature: float, gamma: float = 0.9) -> None:
        super().__init__()
        if not 0 < gamma <= 1:
            raise ValueError(f"0 < γ ≤ 1; got {gamma=}")
        self.temperature, self.gamma = temperature, gamma
        self.register_buffer("log_u", torch.full((images,), -math.inf))

    def forward(self, positive: Tensor, negatives: Negatives, images: Tensor) -> Tensor:
        """The loss of each anchor (A,) in nats; the images' averages are updated.

        Args:
            positive: s0 (A,).
            negatives: s_1 … s_K (A, K).
            images: the distinct images of the batch (N,) int64. A is a multiple of N: the anchors
                are a view of each image, then maybe another view of each.

        Raises:
            ValueError: if the shapes do not fit or τ is not positive.
        """
        pull, push = logits(positive, negatives, self.temperature)  # s0/τ and log S (A,)
        views, rest = divmod(len(positive), len(images))
        if rest:
            raise ValueError(f"A is a multiple of N; got A = {len(positive)}, N = {len(images)}")
        images = images.to(self.log_u.device, non_blocking=True)
        log_k = math.log(negatives.shape[1])
        log_m = push.detach() - log_k  # (A,)
        before = self.log_u[images].repeat(views)  # (A,)
        keep = math.log1p(-self.gamma) if self.gamma < 1 else -math.inf
        mixed = torch.logaddexp(before + keep, log_m + math.log(self.gamma))
        log_u = mixed.where(before > -math.inf, log_m)
        remembered = log_u.view(views, -1).logsumexp(dim=0) - math.log(views)  # (N,)
        self.log_u[images] = remembered.to(self.log_u.dtype)
        # push − sg[push] is 0, with the gradient of log S
        return log_u + log_k - pull + (log_m - log_u).exp() * (push - push.detach())
