"""Which candidates are drawn: never the own, never twice, and all equally often."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eqco.negatives import others, sample


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def other_keys(n: int, k: int, generator: torch.Generator, *, shared: bool) -> Tensor:
    return others(sample(n, n - 1, k, generator, shared=shared), torch.arange(n))


@given(n=st.integers(2, 40), data=st.data(), seed=st.integers(0, 2**31), shared=st.booleans())
@settings(deadline=None)
def test_k_distinct_other_keys(n, data, seed, shared):
    k = data.draw(st.integers(1, n - 1))
    drawn = other_keys(n, k, seeded(seed), shared=shared)
    assert drawn.shape == (n, k)
    for query, keys in enumerate(drawn.tolist()):
        assert len(set(keys)) == k
        assert query not in keys
        assert all(0 <= key < n for key in keys)


def test_shared_is_one_draw_for_all_anchors():
    drawn = sample(50, 49, 5, seeded(0), shared=True)
    assert (drawn == drawn[0]).all()


def test_independent_draws_differ_between_anchors():
    drawn = sample(50, 49, 5, seeded(0), shared=False)
    assert len({frozenset(row) for row in drawn.tolist()}) > 40


@pytest.mark.parametrize("shared", [True, False])
def test_every_other_key_is_drawn_equally_often(shared):
    n, k, draws = 8, 3, 4000
    counts = torch.zeros(n, n)
    generator = seeded(1)
    for _ in range(draws):
        counts.scatter_add_(1, other_keys(n, k, generator, shared=shared), torch.ones(n, k))
    share = counts / draws
    assert share.diagonal().sum() == 0
    off = share[~torch.eye(n, dtype=torch.bool)]
    # standard error of a share p = 3/7 is 0.0078: five of them
    torch.testing.assert_close(off, torch.full_like(off, k / (n - 1)), atol=0.04, rtol=0)


@pytest.mark.parametrize("k", [0, 8, -1])
def test_k_out_of_range_is_an_error(k):
    with pytest.raises(ValueError, match=r"1 … 7; got"):
        sample(8, 7, k, seeded(0))
