"""SimCo: one encoder, and negatives from the other view of the batch."""

import torch
from torch import Tensor

from eqco.methods.base import Contrastive, Similarities, concatenate


class SimCo(Contrastive):
    """SimCo (arXiv 2203.17248): SimMoCo without the momentum encoder.

    Both views are anchors, gradient flows into both sides; an anchor's negatives are K of the N − 1
    other images in the other view.
    """

    def forward(self, view1: Tensor, view2: Tensor, generator: torch.Generator) -> Similarities:
        z1, z2 = self.queries(self.embed(view1), self.embed(view2))  # (N, D) each
        s = z1 @ z2.T  # (N, N)
        return concatenate(self.in_batch(s, generator), self.in_batch(s.T, generator))
