"""What the methods share: an encoder, the draw of K negatives, a momentum key encoder."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqco.losses import Negatives
from eqco.losses.negatives import others, sample
from eqco.networks.encoder import Encoder
from eqco.runtime.ranks import gather, share
from eqco.study.study import Cell, Pretrain

Similarities = tuple[Tensor, Negatives]  # positive (A,), negatives (A, K), of A anchors


class Contrastive(nn.Module):
    """Two views of a batch to similarities.

    Args:
        encoder: trained, and rated in the end.
        cell: K.
        recipe: queue length, moving average, how negatives are drawn, symmetry.
    """

    def __init__(self, encoder: Encoder, cell: Cell, recipe: Pretrain) -> None:
        super().__init__()
        self.encoder = encoder
        self.k = cell.negatives
        self.recipe = recipe
        self.shared = recipe.sampling == "shared"
        self.latest_queries: list[Tensor] = []

    def queries(self, *embeddings: Tensor) -> list[Tensor]:
        """Embeddings (N, D) as unit rows whose gradient is kept: the anchors, for diagnostics."""
        self.latest_queries = [unit(x) for x in embeddings]
        for q in self.latest_queries:
            if q.requires_grad:
                q.retain_grad()
        return self.latest_queries

    def embed(self, view: Tensor) -> Tensor:
        """Embeddings (N, D) of a batch, of which each rank encodes its share (n, C, H, W)."""
        return gather(self.encoder(view))

    def forward(self, view1: Tensor, view2: Tensor, generator: torch.Generator) -> Similarities:
        """Cosine similarities of every anchor for two views (n, C, H, W) of a batch.

        Of one rank they are the batch, n = N; of several they are its share, and the similarities
        are those of the whole batch on every rank. The anchors are the N queries, or 2N where the
        method is symmetric: those of view 1 first.
        """
        raise NotImplementedError

    def after_step(self) -> None:
        """What changes once the gradient has been taken: queues."""

    def others(self, s: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The diagonal of s (N, N) and K of the others in each row."""
        n = len(s)
        column = sample(n, n - 1, self.k, generator, shared=self.shared)
        return s.diagonal(), s.gather(1, others(column, torch.arange(n, device=s.device)))


class MomentumContrastive(Contrastive):
    """With a key encoder that follows the encoder by a moving average of its parameters.

    Both stay in train mode, each with its own batch-norm statistics; the average comes between the
    two forward passes, as in EqCo's released code.
    """

    def __init__(self, encoder: Encoder, cell: Cell, recipe: Pretrain) -> None:
        super().__init__(encoder, cell, recipe)
        self.key_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.followed = False  # in this step

    def pairs(
        self, view1: Tensor, view2: Tensor, generator: torch.Generator
    ) -> list[tuple[Tensor, Tensor]]:
        """Queries and their keys, (N, D) each; with ``symmetric`` also the other way round."""
        views = [(view1, view2), (view2, view1)] if self.recipe.symmetric else [(view1, view2)]
        q = self.queries(*(self.embed(view) for view, _ in views))
        if not self.followed:  # once a step, also of a batch that is taken in parts
            self.follow()
            self.followed = True
        return list(zip(q, (self.keys(view, generator) for _, view in views), strict=True))

    @torch.no_grad()
    def follow(self) -> None:
        """Move the key encoder towards the encoder."""
        keys: list[Tensor] = list(self.key_encoder.parameters())
        queries: list[Tensor] = list(self.encoder.parameters())
        torch._foreach_lerp_(keys, queries, 1 - self.recipe.ema)

    @torch.no_grad()
    def keys(self, view: Tensor, generator: torch.Generator) -> Tensor:
        """Unit keys (N, D) of a view (n, C, H, W), without gradient.

        Shuffled for the forward pass where batch norm is split in groups: a query and its key are
        then normalised with other images, and the group gives nothing away (MoCo's shuffle-BN).
        """
        if self.encoder.groups == 1:
            return unit(gather(self.key_encoder(view)))
        batch = gather(view)  # (N, C, H, W)
        order = torch.randperm(len(batch), generator=generator, device=view.device)
        return unit(gather(self.key_encoder(share()(batch[order]))))[order.argsort()]

    def after_step(self) -> None:
        self.followed = False


def unit(x: Tensor) -> Tensor:
    """Rows (N, D) of length 1, in float32 or better."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)))


class Queue(nn.Module):
    """The last L unit embeddings, first in, first out; random ones until it is full.

    Args:
        length: L.
        dim: D.
    """

    items: Tensor
    oldest: Tensor

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("items", F.normalize(torch.randn(length, dim)))  # (L, D)
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long))

    def push(self, new: Tensor) -> None:
        """Put embeddings (N, D) in place of the oldest; of more than L, the last L."""
        length = len(self.items)
        new = new[-length:]
        place = (self.oldest + torch.arange(len(new), device=new.device)) % length
        self.items[place] = new
        self.oldest.add_(len(new)).remainder_(length)


def join(*parts: tuple[Tensor, Tensor]) -> Similarities:
    """The anchors of several directions, one after the other."""
    positive, negatives = zip(*parts, strict=True)
    return torch.cat(positive), torch.cat(negatives)
