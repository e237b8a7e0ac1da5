"""DHEL: one encoder, and negatives from the anchor's own view of the batch."""

import torch
from torch import Tensor

from eqco.methods.base import Contrastive, Similarities, concatenate


class DHEL(Contrastive):
    """The negatives of the decoupled hyperspherical energy loss (DHEL, arXiv 2405.18045).

    Both views are anchors, gradient flows into both sides; an anchor's negatives are K of the N − 1
    other images in its own view. With all of them and the margin ∞ the loss is DHEL. The authors'
    code adds up the two views' log-sums against one positive term; here each has its own.
    """

    def forward(self, view1: Tensor, view2: Tensor, generator: torch.Generator) -> Similarities:
        z1, z2 = self.queries(self.embed(view1), self.embed(view2))  # (N, D) each
        positive = (z1 * z2).sum(dim=1)  # (N,)
        return concatenate(
            *(
                (positive, self.in_batch(z @ z.T, generator)[1]) for z in (z1, z2)
            )  # negatives (N, K)
        )
