"""NNCLR: the positive is the nearest neighbour in a support set."""

import torch
from torch import Tensor

from eqco.methods.base import Contrastive, Queue, Similarities, join, unit
from eqco.networks.encoder import Encoder, projector
from eqco.study.study import Cell, Pretrain


class NNCLR(Contrastive):
    """Nearest-neighbour contrastive learning (arXiv 2104.14548).

    An anchor is the neighbour, in a queue of L = ``pretrain.queue`` earlier embeddings, of a view's
    embedding, without gradient; its positive is the prediction from the other view, its negatives
    are K of the N − 1 predictions from the other view of the other images. Both directions count;
    view 1's embeddings are queued after the look-up.
    """

    def __init__(self, encoder: Encoder, cell: Cell, recipe: Pretrain) -> None:
        super().__init__(encoder, cell, recipe)
        assert recipe.queue, "a study with nnclr has pretrain.queue"
        self.predictor = projector([encoder.dim, encoder.hidden, encoder.dim], "hidden")
        self.support = Queue(recipe.queue, encoder.dim)

    def forward(self, view1: Tensor, view2: Tensor, generator: torch.Generator) -> Similarities:
        z1, z2 = self.embed(view1), self.embed(view2)  # (N, D)
        # the neighbours take no gradient: the predictions do, in the place of queries
        with self.encoder.in_precision(z1.device):
            p = self.predictor(z1), self.predictor(z2)  # (N, D) each
        p1, p2 = self.queries(*p)
        self.latest = unit(z1.detach())
        return join(
            self.others(self._neighbours(z1) @ p2.T, generator),
            self.others(self._neighbours(z2) @ p1.T, generator),
        )

    @torch.no_grad()
    def _neighbours(self, z: Tensor) -> Tensor:
        """The nearest of the support set to each embedding, (N, D)."""
        nearest = (unit(z) @ self.support.items.T).argmax(dim=1)  # (N,)
        return self.support.items[nearest]

    def after_step(self) -> None:
        self.support.push(self.latest)
