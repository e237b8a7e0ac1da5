"""SimCLR: one encoder, and negatives from both views of the batch."""

import torch
from torch import Tensor

from eqco.losses.sampling import sample, skip_own
from eqco.methods.base import Contrastive, Similarities


class SimCLR(Contrastive):
    """SimCLR (arXiv 2002.05709): all 2N views are anchors, with gradient on both sides.

    An anchor's negatives are K of the 2(N − 1) views of the other images. Both views go through the
    encoder as one batch, so that batch norm sees them together, as in the authors' code.
    """

    def forward(self, view1: Tensor, view2: Tensor, generator: torch.Generator) -> Similarities:
        (z,) = self.queries(self.embed(torch.cat([view1, view2])))  # (2N, D)
        n = len(z) // 2
        s = z @ z.T  # (2N, 2N)
        column = sample(2 * n, 2 * (n - 1), self.k, generator, shared=self.shared)  # (2N, K)
        # columns 0 … N − 2 are view 1 of the other images, the rest view 2
        view, image = column // (n - 1), column % (n - 1)
        own = torch.arange(2 * n, device=s.device) % n  # (2N,)
        positive = torch.cat([s.diagonal(n), s.diagonal(-n)])  # (2N,)
        return positive, s.gather(1, view * n + skip_own(image, own))
