"""MoCo: a momentum key encoder, and negatives from a queue of earlier keys."""

import torch
from torch import Tensor

from eqco.losses.negatives import SharedNegatives, sample
from eqco.methods.base import MomentumContrastive, Queue, Similarities
from eqco.networks.encoder import Encoder
from eqco.study.study import Cell, Pretrain


class MoCo(MomentumContrastive):
    """Momentum contrast (arXiv 1911.05722; v2: 2003.04297).

    A query's negatives are K keys of a first-in first-out queue of L = ``pretrain.queue`` keys of
    earlier batches, or the whole queue where L = K. With ``symmetric`` both views are queries and
    both views' keys are queued, as in the authors' CIFAR-10 notebook.
    """

    def __init__(self, encoder: Encoder, cell: Cell, recipe: Pretrain) -> None:
        super().__init__(encoder, cell, recipe)
        self.queue = Queue(recipe.queue or cell.negatives, encoder.dim)
        self.latest: Tensor  # the step's keys (A, D), of all parts of its batch

    def forward(self, view1: Tensor, view2: Tensor, generator: torch.Generator) -> Similarities:
        first = not self.followed  # of the parts of a batch
        q, k = (torch.cat(side) for side in zip(*self.pairs(view1, view2, generator), strict=True))
        self.latest = k if first else torch.cat([self.latest, k])
        queued = self.queue.items  # (L, D)
        positive = (q * k).sum(dim=1)  # (A,)
        if self.k == len(queued):
            return positive, SharedNegatives(q, queued)
        column = sample(len(q), len(queued), self.k, generator, shared=self.shared)  # (A, K)
        if self.shared:
            return positive, SharedNegatives(q, queued[column[0]])
        return positive, (q @ queued.T).gather(1, column)

    def after_step(self) -> None:
        super().after_step()
        self.queue.push(self.latest)
