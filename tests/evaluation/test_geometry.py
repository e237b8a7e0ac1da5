"""Alignment, uniformity and RankMe, against scipy and numpy, and of an encoder."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from eqco.evaluation.geometry import alignment, rank_me, uniformity

FEATURES = torch.randn(60, 12, generator=torch.Generator().manual_seed(0)) ** 3


def unit(x: torch.Tensor) -> np.ndarray:
    return (x / x.norm(dim=1, keepdim=True)).double().numpy()


def test_uniformity_is_scipys_mean_over_pairs():
    expected = math.log(np.exp(-2 * pdist(unit(FEATURES)) ** 2).mean())
    assert uniformity(FEATURES) == pytest.approx(expected, rel=1e-5)
    assert uniformity(torch.ones(5, 3)) == 0  # all in one place


def test_alignment_is_the_distance_of_pairs():
    other = FEATURES.roll(1, 0)
    expected = ((unit(FEATURES) - unit(other)) ** 2).sum(1).mean()
    assert alignment(FEATURES, other) == pytest.approx(expected, rel=1e-5)
    assert alignment(FEATURES, 3 * FEATURES) == pytest.approx(0, abs=1e-10)
    assert alignment(FEATURES, -FEATURES) == pytest.approx(4)


def test_rank_me_is_the_entropy_of_the_singular_values():
    values = np.linalg.svd(FEATURES.double().numpy(), compute_uv=False)
    p = values / values.sum() + 1e-7
    assert rank_me(FEATURES) == pytest.approx(math.exp(-(p * np.log(p)).sum()))
    assert rank_me(torch.eye(7)) == pytest.approx(7, rel=1e-5)
    assert rank_me(torch.ones(7, 3)) == pytest.approx(1, rel=1e-4)
