"""MoCo: a momentum key encoder, and negatives from a queue of earlier keys."""

import torch
from torch import Tensor

from eqco.methods.base import MomentumContrastive, Queue, Similarities, join
from eqco.negatives import sample
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
        pairs = self.pairs(view1, view2, generator)
        self.latest = torch.cat([k for _, k in pairs])
        return join(*(self._similarities(q, k, generator) for q, k in pairs))

    def _similarities(self, q: Tensor, k: Tensor, generator: torch.Generator) -> Similarities:
        positive, queued = (q * k).sum(dim=1), self.queue.items  # (N,), (L, D)
        if self.k == len(queued):
            return positive, q @ queued.T  # (N, L)
        column = sample(len(q), len(queued), self.k, generator, shared=self.shared)  # (N, K)
        if self.shared:  # the same keys for every query: the others need no product
            return positive, q @ queued[column[0]].T
        return positive, (q @ queued.T).gather(1, column)

    def after_step(self) -> None:
        self.queue.push(self.latest)
