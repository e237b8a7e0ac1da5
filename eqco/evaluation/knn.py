"""Weighted k-nearest-neighbour vote on fixed features."""

import torch
from torch import Tensor
from torch.nn import functional as F

from eqco.evaluation.features import Features
from eqco.study.protocols import KNN


def knn(features: Features, params: KNN, chunk: int = 1024) -> dict[str, float]:
    """Weighted k-nearest-neighbour vote (arXiv 1805.01978, section 3.4).

    The k training images of largest cosine similarity s vote for their class with weight
    exp(s/T). If there are fewer than k training images, all vote.

    Args:
        features: of the splits.
        params: k and T.
        chunk: images compared at a time, which bounds the memory.

    Returns:
        The accuracies of each of ``params.votes``, as ``Features.accuracies``.
    """
    bank = F.normalize(features.train)  # (M, F)
    scores: dict[str, list[Tensor]] = {name: [] for name in params.votes}
    for queries in F.normalize(features.rated).split(chunk):
        largest_k = min(max(params.votes.values()), len(bank))
        similarity, neighbour = (queries @ bank.T).topk(largest_k)  # (B, k), the nearest first
        weight = (similarity / params.temperature).exp()
        label = features.train_labels[neighbour]
        for name, k in params.votes.items():
            votes = weight.new_zeros(len(queries), features.classes)  # (B, Y)
            scores[name].append(votes.scatter_add_(1, label[:, :k], weight[:, :k]))
    accuracies: dict[str, float] = {}
    for name, parts in scores.items():
        accuracies |= features.accuracies(name, torch.cat(parts))
    return accuracies
