"""The parts that the methods share: an encoder, the draw of K negatives, a momentum encoder."""

import copy

import torch
from torch import Tensor, nn

from eqco.losses import Negatives
from eqco.losses.sampling import sample, skip_own
from eqco.losses.similarities import l2_normalize
from eqco.networks.encoder import Encoder
from eqco.runtime.ranks import gather, share
from eqco.study.cell import Cell
from eqco.study.recipe import Pretrain

Similarities = tuple[Tensor, Negatives]  # positive (A,), negatives (A, K), of A anchors


class Contrastive(nn.Module):
    """A method: two views of a batch to similarities.

    Args:
        encoder: trained by the method, and evaluated afterwards.
        cell: for K.
        recipe: for the queue's length, the moving average, the draw of negatives, the symmetry.
    """

    def __init__(self, encoder: Encoder, cell: Cell, recipe: Pretrain) -> None:
        super().__init__()
        self.encoder = encoder
        self.k = cell.negatives
        self.recipe = recipe
        self.shared = recipe.sampling == "shared"
        self.latest_queries: list[Tensor] = []  # of the last forward pass, for diagnostics

    def forward(self, view1: Tensor, view2: Tensor, generator: torch.Generator) -> Similarities:
        """Cosine similarities of every anchor with its positive and its K negatives.

        Args:
            view1: this rank's n images of the batch, (n, C, H, W); n = N if there is one rank.
            view2: another view of the same images.
            generator: the source of randomness for the draw of negatives.

        Returns:
            The similarities of the whole batch, on every rank. The anchors are the N queries, or
            2N if both views are queries: those of view 1 first.
        """
        raise NotImplementedError

    def after_step(self) -> None:
        """Update what follows the optimiser's step, such as a queue."""

    def embed(self, view: Tensor) -> Tensor:
        """Embeddings (N, D) of the whole batch; each rank encodes its share (n, C, H, W)."""
        return gather(self.encoder(view))

    def queries(self, *embeddings: Tensor) -> list[Tensor]:
        """Normalize embeddings (N, D) and keep their gradient for the diagnostics."""
        self.latest_queries = [l2_normalize(x) for x in embeddings]
        for q in self.latest_queries:
            if q.requires_grad:
                q.retain_grad()
        return self.latest_queries

    def in_batch(self, s: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positives and negatives from the similarities s (N, N) of queries with the batch's keys.

        Returns:
            The diagonal (N,), and K of the N − 1 other columns in each row (N, K).
        """
        n = len(s)
        column = sample(n, n - 1, self.k, generator, shared=self.shared)  # (N, K)
        return s.diagonal(), s.gather(1, skip_own(column, torch.arange(n, device=s.device)))


class MomentumContrastive(Contrastive):
    """A method with a key encoder: a moving average of the encoder's parameters.

    Both encoders stay in train mode, each with its own batch-norm statistics. The key encoder is
    updated between the two forward passes, as in EqCo's released code.
    """

    def __init__(self, encoder: Encoder, cell: Cell, recipe: Pretrain) -> None:
        super().__init__(encoder, cell, recipe)
        self.key_encoder = copy.deepcopy(encoder).requires_grad_(False)

    def queries_and_keys(
        self, view1: Tensor, view2: Tensor, generator: torch.Generator
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Unit queries of view 1 and keys of view 2; if ``symmetric``, also of 2 and 1.

        Returns:
            One or two tensors (N, D) of queries, and as many of their keys, without gradient.
        """
        if self.recipe.symmetric:
            q = self.queries(self.embed(view1), self.embed(view2))
            self.update_key_encoder()
            return q, [self.keys(view2, generator), self.keys(view1, generator)]
        q = self.queries(self.embed(view1))
        self.update_key_encoder()
        return q, [self.keys(view2, generator)]

    @torch.no_grad()
    def update_key_encoder(self) -> None:
        """Move the key encoder towards the encoder: θ_k ← ema · θ_k + (1 − ema) · θ_q."""
        theta_k: list[Tensor] = list(self.key_encoder.parameters())
        theta_q: list[Tensor] = list(self.encoder.parameters())
        torch._foreach_lerp_(theta_k, theta_q, 1 - self.recipe.ema)

    @torch.no_grad()
    def keys(self, view: Tensor, generator: torch.Generator) -> Tensor:
        """Unit keys (N, D) of a view (n, C, H, W), without gradient.

        If batch norm is split in groups, the images are shuffled for the forward pass (MoCo's
        shuffle-BN). A query and its key are then normalized with different images, so that the
        group's statistics do not give the positive away.
        """
        if self.encoder.groups == 1:
            return l2_normalize(gather(self.key_encoder(view)))
        batch = gather(view)  # (N, C, H, W)
        order = torch.randperm(len(batch), generator=generator, device=view.device)
        shuffled = gather(self.key_encoder(share()(batch[order])))  # (N, D)
        return l2_normalize(shuffled)[order.argsort()]


def concatenate(*directions: tuple[Tensor, Tensor]) -> Similarities:
    """Similarities of the anchors of several directions, one direction after the other."""
    positive, negatives = zip(*directions, strict=True)
    return torch.cat(positive), torch.cat(negatives)
