"""SiMo and SimMoCo: a momentum key encoder, and negatives from the batch."""

import torch
from torch import Tensor

from eqco.methods.base import MomentumContrastive, Similarities, concatenate


class SiMo(MomentumContrastive):
    """Simplified MoCo, without the queue (EqCo, arXiv 2010.01929).

    View 1 goes through the encoder, view 2 through the key encoder; a query's negatives are K of
    the N − 1 other keys of its batch. With ``symmetric``, also the other way round: SimMoCo (arXiv
    2203.17248) in its "plus" version.
    """

    def forward(self, view1: Tensor, view2: Tensor, generator: torch.Generator) -> Similarities:
        queries, keys = self.queries_and_keys(view1, view2, generator)  # (N, D) each
        return concatenate(
            *(self.in_batch(q @ k.T, generator) for q, k in zip(queries, keys, strict=True))
        )
