"""MoCo: a momentum key encoder, and negatives from a queue of earlier keys."""

import torch
from torch import Tensor

from eqco.methods.base import MomentumContrastive, Queue, Similarities
from eqco.negatives import SharedNegatives, sample
from eqco.networks import Encoder
from eqco.params import Cell, Pretrain


class MoCo(MomentumContrastive):
    """Momentum contrast (arXiv 1911.05722; v2: 2003.04297).

    A query's negatives are K keys of a first-in first-out queue of L = ``pretrain.queue`` keys of
    earlier batches, or the whole queue where L = K. With ``symmetric`` both views are queries and
    both views' keys are queued, as in the authors' CIFAR-10 notebook.
    """

    def __init__(self, encoder: Encoder, cell: Cell, recipe: Pretrain) -> None:
        super().__init__(encoder, cell, recipe)
        self.queue = Queue(recipe.queue or cell.negatives, encoder.dim)

    def forward(self, view1: Tensor, view2: Tensor, generator: torch.Generator) -> Similarities:
        q, k = (torch.cat(side) for side in zip(*self.pairs(view1, view2, generator), strict=True))
        self.latest, queued = k, self.queue.items  # (A, D), (L, D)
        positive = (q * k).sum(dim=1)  # (A,)
        if self.k == len(queued):
            return positive, SharedNegatives(q, queued)
        column = sample(len(q), len(queued), self.k, generator, shared=self.shared)  # (A, K)
        if self.shared:
            return positive, SharedNegatives(q, queued[column[0]])
        return positive, (q @ queued.T).gather(1, column)

    def after_step(self) -> None:
        self.queue.push(self.latest)
