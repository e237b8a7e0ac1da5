"""NNCLR: the positive is the nearest neighbour in a support set."""

import torch
from torch import Tensor

from eqco.losses.similarities import l2_normalize
from eqco.methods.base import Contrastive, Similarities, concatenate
from eqco.methods.queue import Queue
from eqco.networks.encoder import Encoder, projector
from eqco.study.cell import Cell
from eqco.study.recipe import Pretrain


class NNCLR(Contrastive):
    """Nearest-neighbour contrastive learning (arXiv 2104.14548).

    The support set is a queue of L = ``pretrain.queue`` earlier embeddings. An anchor is the
    nearest neighbour, in the support set, of a view's embedding; it takes no gradient. Its positive
    is the prediction from the image's other view. Its negatives are K of the N − 1 predictions from
    the other view of the other images. Both directions count. View 1's embeddings are queued after
    the look-up.
    """

    def __init__(self, encoder: Encoder, cell: Cell, recipe: Pretrain) -> None:
        super().__init__(encoder, cell, recipe)
        assert recipe.queue, "a study with nnclr has pretrain.queue"
        self.predictor = projector([encoder.dim, encoder.hidden, encoder.dim], "hidden")
        self.support = Queue(recipe.queue, encoder.dim)

    def forward(self, view1: Tensor, view2: Tensor, generator: torch.Generator) -> Similarities:
        z1, z2 = self.embed(view1), self.embed(view2)  # (N, D)
        # the anchors are neighbours, which take no gradient; the predictions do
        with self.encoder.in_precision(z1.device):
            p = self.predictor(z1), self.predictor(z2)  # (N, D) each
        p1, p2 = self.queries(*p)
        self.latest_embeddings = l2_normalize(z1.detach())
        return concatenate(
            self.in_batch(self._neighbours(z1) @ p2.T, generator),
            self.in_batch(self._neighbours(z2) @ p1.T, generator),
        )

    @torch.no_grad()
    def _neighbours(self, z: Tensor) -> Tensor:
        """The nearest of the support set to each embedding, (N, D)."""
        nearest = (l2_normalize(z) @ self.support.items.T).argmax(dim=1)  # (N,)
        return self.support.items[nearest]

    def after_step(self) -> None:
        self.support.push(self.latest_embeddings)
