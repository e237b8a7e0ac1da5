"""Losses of embeddings, as modules for a training loop of any kind."""

import math

import torch
from torch import Tensor, nn

from eqco.losses.family import dual_temperature, eqco_margin, info_nce
from eqco.losses.shared_negatives import SharedNegatives
from eqco.losses.similarities import Negatives, above_zero, l2_normalize, of_both_views
from eqco.runtime.ranks import gather as gather_rows


class EmbeddingLoss(nn.Module):
    """The mean loss of a batch's anchors, from its embeddings; a subclass gives ``per_anchor``.

    ``loss(z0, z1)`` takes two views of N images (N, D). All 2N views are anchors, symmetrically, as
    in SimCLR (arXiv 2002.05709): the positive is the image's other view, the negatives are both
    views of all other images, K = 2(N − 1). Gradient flows into both sides.

    ``loss(q, k, queue)`` takes queries and their keys (N, D), and K keys of other images (K, D).
    The N queries are the anchors, as in MoCo (arXiv 1911.05722), and all share the negatives. The
    queue gets no gradient; in MoCo the keys have none either.

    Embeddings are scaled to length 1 here, in float32 or better.

    Args:
        gather: whether the images are those of all ranks of torch.distributed. Each rank then gives
            as many rows as every other, and gets the loss of the whole batch. After
            DistributedDataParallel's mean, gradients are those of one process with the whole batch.
            Each rank holds the similarities of the whole batch. A queue has to be the same on all
            ranks. Without a process group nothing is gathered.
    """

    def __init__(self, *, gather: bool = False) -> None:
        super().__init__()
        self.gather = gather

    def forward(self, z0: Tensor, z1: Tensor, queue: Tensor | None = None) -> Tensor:
        """The loss, a scalar in nats.

        Args:
            z0: view 1, or queries (N, D).
            z1: view 2, or keys (N, D).
            queue: negatives (K, D), K ≥ 1; without them N ≥ 2, counted over all ranks.

        Raises:
            ValueError: if the shapes do not fit.
        """
        shape = tuple(z0.shape)
        if len(shape) != 2 or tuple(z1.shape) != shape:
            raise ValueError(f"two tensors (N, D) of one shape; got {shape}, {tuple(z1.shape)}")
        if queue is not None and (queue.dim() != 2 or queue.shape[1] != shape[1] or not len(queue)):
            raise ValueError(f"a queue (K ≥ 1, {shape[1]}); got {tuple(queue.shape)}")
        if self.gather:
            z0, z1 = gather_rows(z0), gather_rows(z1)
        z0, z1 = l2_normalize(z0), l2_normalize(z1)
        if queue is None:
            return self.per_anchor(*_in_batch(z0, z1)).mean()
        keys = l2_normalize(queue.detach())
        return self.per_anchor((z0 * z1).sum(dim=1), SharedNegatives(z0, keys)).mean()

    def per_anchor(self, positive: Tensor, negatives: Negatives) -> Tensor:
        """The loss of each anchor (A,) from its similarities (A,) and (A, K)."""
        raise NotImplementedError


class EqCoLoss(EmbeddingLoss):
    """InfoNCE with EqCo's margin τ log(α/K) (arXiv 2010.01929), K the negatives of each call.

    Args:
        alpha: α > 0, the number of negatives to stand in for.
        temperature: τ > 0.
        gather: see ``EmbeddingLoss``.

    Raises:
        ValueError: if α or τ is out of its range.
    """

    def __init__(self, alpha: float, temperature: float, *, gather: bool = False) -> None:
        super().__init__(gather=gather)
        if not 0 < alpha < math.inf:
            raise ValueError(f"α > 0, finite; got {alpha}")
        self.alpha, self.temperature = alpha, above_zero(temperature)

    def per_anchor(self, positive: Tensor, negatives: Negatives) -> Tensor:
        margin = eqco_margin(negatives.shape[1], self.alpha, self.temperature)
        return info_nce(positive, negatives, temperature=self.temperature, margin=margin)


class DCLLoss(EmbeddingLoss):
    """The decoupled loss (arXiv 2110.06848), EqCo's limit for α → ∞; it may be negative.

    Args:
        temperature: τ > 0.
        gather: see ``EmbeddingLoss``.

    Raises:
        ValueError: if τ is not positive.
    """

    def __init__(self, temperature: float, *, gather: bool = False) -> None:
        super().__init__(gather=gather)
        self.temperature = above_zero(temperature)

    def per_anchor(self, positive: Tensor, negatives: Negatives) -> Tensor:
        return info_nce(positive, negatives, temperature=self.temperature, margin=math.inf)


class DualTemperatureLoss(EmbeddingLoss):
    """The dual temperature (arXiv 2203.17248); its values are comparable at one τ_β alone.

    Args:
        intra: τ_α > 0, how an anchor weighs its negatives; 0.1 in the authors' code.
        inter: τ_β > 0, how anchors are weighed against each other; 1 in the authors' code.
        gather: see ``EmbeddingLoss``.

    Raises:
        ValueError: if a temperature is not positive.
    """

    def __init__(self, intra: float = 0.1, inter: float = 1.0, *, gather: bool = False) -> None:
        super().__init__(gather=gather)
        self.intra, self.inter = above_zero(intra), above_zero(inter)

    def per_anchor(self, positive: Tensor, negatives: Negatives) -> Tensor:
        return dual_temperature(positive, negatives, intra=self.intra, inter=self.inter)


def _in_batch(z0: Tensor, z1: Tensor) -> tuple[Tensor, Tensor]:
    """Similarities of both views (2N,), and with both views of all other images (2N, 2(N − 1))."""
    n = len(z0)
    if n < 2:
        raise ValueError(f"at least 2 images, as others are the negatives; got {n}")
    column = torch.arange(2 * (n - 1), device=z0.device).expand(2 * n, -1)
    return of_both_views(torch.cat([z0, z1]), column)
