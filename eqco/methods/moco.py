"""MoCo: a momentum key encoder, and negatives from a queue of earlier keys."""

import torch
from torch import Tensor

from eqco.losses import SharedNegatives
from eqco.losses.sampling import sample
from eqco.methods.base import MomentumContrastive, Similarities
from eqco.methods.queue import Queue
from eqco.networks.encoder import Encoder
from eqco.study.cell import Cell
from eqco.study.recipe import Pretrain


class MoCo(MomentumContrastive):
    """Momentum contrast (arXiv 1911.05722; v2: 2003.04297).

    The negatives of a query are K keys of earlier batches, from a first-in first-out queue of
    L = ``pretrain.queue`` keys. If ``pretrain.queue`` is not set, L = K. If ``symmetric``, both
    views are queries and the keys of both are queued, as in the authors' CIFAR-10 notebook.
    """

    def __init__(self, encoder: Encoder, cell: Cell, recipe: Pretrain) -> None:
        super().__init__(encoder, cell, recipe)
        self.queue = Queue(recipe.queue or cell.negatives, encoder.dim)
        self.latest_keys: Tensor  # (A, D)

    def forward(self, view1: Tensor, view2: Tensor, generator: torch.Generator) -> Similarities:
        # queries with gradient, keys without; A = N, or 2N if symmetric
        queries, keys = self.queries_and_keys(view1, view2, generator)
        q, k = torch.cat(queries), torch.cat(keys)  # (A, D) each

        # positive similarity of each query with its own key
        positive = (q * k).sum(dim=1)  # (A,)

        # negative similarities with K keys of the queue: all, K for the step, or K for each query
        queue = self.queue.items  # (L, D)
        if self.k == len(queue):
            negatives: Tensor | SharedNegatives = SharedNegatives(q, queue)
        else:
            column = sample(len(q), len(queue), self.k, generator, shared=self.shared)  # (A, K)
            negatives = (
                SharedNegatives(q, queue[column[0]])
                if self.shared
                else (q @ queue.T).gather(1, column)
            )

        # queued after the step: the gradient and the diagnostics still read the old queue
        self.latest_keys = k
        return positive, negatives

    def after_step(self) -> None:
        self.queue.push(self.latest_keys)
