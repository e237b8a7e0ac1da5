"""Draws: never the own, never twice, all equally often. Shared negatives: as if made as a whole."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from eqco.losses import SharedNegatives, siglip
from eqco.losses import family as losses
from eqco.losses import shared_negatives as module
from eqco.losses.sampling import sample, skip_own
from eqco.losses.similarities import first


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def other_keys(n: int, k: int, generator: torch.Generator, *, shared: bool) -> Tensor:
    return skip_own(sample(n, n - 1, k, generator, shared=shared), torch.arange(n))


@given(n=st.integers(2, 40), data=st.data(), seed=st.integers(0, 2**31), shared=st.booleans())
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


def shared_negatives(
    anchors: int = 6, k: int = 50, seed: int = 0, dtype=torch.float64
) -> tuple[Tensor, Tensor]:
    """Unit anchors, which take a gradient, and unit keys."""
    generator = seeded(seed)
    q, keys = (
        F.normalize(torch.randn(n, 12, generator=generator, dtype=dtype)) for n in (anchors, k)
    )
    return q.requires_grad_(), keys


LOSSES = {
    "info_nce": partial(losses.info_nce, temperature=0.1, margin=0.3),
    "dcl": partial(losses.dcl, temperature=0.1),
    "dclw": partial(losses.dclw, temperature=0.1),
    "dual_temperature": losses.dual_temperature,
    "macl": partial(losses.macl, temperature=0.1),
    "siglip": partial(siglip, temperature=0.1),
    "weight": partial(losses.weight, temperature=0.1),
}


@pytest.mark.parametrize("chunk", [1, 7, 50, 2048])
@pytest.mark.parametrize("name", LOSSES)
def test_shared_negatives_give_every_loss_its_value_and_gradient(name, chunk, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    q, keys = shared_negatives()
    positive = (q * keys[:6].flip(1)).sum(1)
    found = LOSSES[name](positive, SharedNegatives(q, keys))
    expected = LOSSES[name](positive, q @ keys.T)
    torch.testing.assert_close(found, expected, atol=0, rtol=1e-12)
    upstream = torch.rand(6, generator=seeded(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(found @ upstream, q, retain_graph=True)
    (plain,) = torch.autograd.grad(expected @ upstream, q)
    torch.testing.assert_close(gradient, plain, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("temperature", [1e-3, 0.01, 1, 100])
def test_shared_negatives_in_float32_at_the_queue_of_the_papers(temperature):
    q, keys = shared_negatives(32, 65_536, dtype=torch.float32)
    exact = (q.double() @ keys.double().T / temperature).logsumexp(1)
    found = SharedNegatives(q, keys).log_sum_exp(temperature)
    torch.testing.assert_close(found.double(), exact, atol=0, rtol=1e-5)
    (gradient,) = torch.autograd.grad(found.sum(), q)
    (plain,) = torch.autograd.grad(exact.sum(), q)
    torch.testing.assert_close(gradient, plain, atol=1e-5 / temperature, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_shared_negatives_under_autocast(name, dtype):
    """In float32 whatever autocast says, but for SigLIP, which makes the tensor in bfloat16."""
    rounding = 2**-8 / 0.1 if name == "siglip" else 1e-5  # of s/τ
    q, keys = (x.detach().to(dtype) for x in shared_negatives(dtype=torch.float32))
    positive = (q * keys[:6].flip(1)).sum(1).float()
    plain = q.to(torch.float32, copy=True).requires_grad_()
    expected = LOSSES[name](positive, SharedNegatives(plain, keys.float()))
    with torch.autocast("cpu", torch.bfloat16):
        found = LOSSES[name](positive, SharedNegatives(q.requires_grad_(), keys))
    torch.testing.assert_close(found, expected, atol=rounding, rtol=rounding)  # of one dtype
    found.sum().backward()
    expected.sum().backward()
    assert q.grad.dtype == dtype
    rounding = max(rounding, torch.finfo(dtype).eps)  # a gradient has its input's precision
    atol = rounding * plain.grad.abs().max().item()
    torch.testing.assert_close(q.grad.float(), plain.grad, atol=atol, rtol=rounding)


def test_shared_negatives_without_data():
    q, keys = (x.detach().to("meta") for x in shared_negatives())
    q.requires_grad_()
    SharedNegatives(q, keys).log_sum_exp(0.1).sum().backward()
    assert q.grad.shape == q.shape


def test_shared_negatives_are_never_made_as_a_whole():
    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                self.size = max(self.size, result.numel())
            return result

    q, keys = shared_negatives(256, 65_536, dtype=torch.float32)
    with Largest() as seen:
        losses.info_nce(q[:, 0], SharedNegatives(q, keys), temperature=0.2).sum().backward()
    assert q.numel() <= seen.size <= max(keys.numel(), 256 * module.CHUNK)


def test_shared_negatives_know_their_shape_mean_and_dense_form():
    q, keys = shared_negatives()
    shared = SharedNegatives(q, keys)
    assert shared.shape == shared.dense().shape == (6, 50)
    torch.testing.assert_close(shared.mean(), shared.dense().mean())
    assert not shared.detach().dense().requires_grad


def test_the_first_of_the_negatives():
    q, keys = shared_negatives()
    some = first(SharedNegatives(q, keys), 7)
    torch.testing.assert_close(some.dense(), first(q @ keys.T, 7))
    assert some.shape == (6, 7)
    with pytest.raises(ValueError, match="k ≤ K; got k=51, K = 50"):
        first(SharedNegatives(q, keys), 51)


def test_shared_negatives_must_fit_the_positives():
    with pytest.raises(ValueError, match=r"got \(5,\), \(6, 50\)"):
        losses.dcl(torch.zeros(5), SharedNegatives(*shared_negatives()), temperature=1.0)
