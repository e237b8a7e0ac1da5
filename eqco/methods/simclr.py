"""SimCLR: one encoder, and negatives from both views of the batch."""

import torch
from torch import Tensor

from eqco.losses.sampling import sample
from eqco.losses.similarities import of_both_views
from eqco.methods.base import Contrastive, Similarities


class SimCLR(Contrastive):
    """SimCLR (arXiv 2002.05709): all 2N views are anchors, with gradient on both sides.

    An anchor's negatives are K of the 2(N − 1) views of the other images. Both views go through the
    encoder as one batch, so that batch norm sees them together, as in the authors' code. With
    ``batch_norm_per_view`` they go one after the other, as in other implementations.
    """

    def forward(self, view1: Tensor, view2: Tensor, generator: torch.Generator) -> Similarities:
        batches = [view1, view2] if self.recipe.batch_norm_per_view else [torch.cat([view1, view2])]
        embeddings = torch.cat([self.embed(batch) for batch in batches])  # (2N, D)
        (z,) = self.queries(embeddings)
        n = len(z) // 2
        column = sample(2 * n, 2 * (n - 1), self.k, generator, shared=self.shared)  # (2N, K)
        return of_both_views(z, column)
