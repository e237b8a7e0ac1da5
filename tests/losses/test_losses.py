"""The loss against its definition, its gradient against the family's, and its limits."""

import math
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from eqco.losses import eqco_margin, info_nce

KS = [1, 2, 16, 255]
TAUS = [0.05, 0.2, 1.0]


def similarities(k: int, b: int = 7, seed: int = 0, dtype=torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(b, k + 1, generator=generator, dtype=dtype) * 2 - 1
    return draw[:, 0], draw[:, 1:]


def by_definition(s0: Tensor, s: Tensor, tau: float, m: float) -> Tensor:
    positive = torch.exp((s0 - m) / tau)
    return -torch.log(positive / (positive + torch.exp(s / tau).sum(1)))


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("m", [-0.3, 0.0, 0.5])
def test_it_is_the_papers_equation_1(k, tau, m):
    s0, s = similarities(k)
    loss = info_nce(s0, s, temperature=tau, margin=m)
    torch.testing.assert_close(loss, by_definition(s0, s, tau, m), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("k", KS)
def test_without_a_margin_it_is_cross_entropy_with_the_positive_as_class_0(k):
    s0, s = similarities(k)
    logits = torch.cat([s0[:, None], s], dim=1) / 0.1
    expected = torch.nn.functional.cross_entropy(
        logits, torch.zeros(len(s0), dtype=torch.long), reduction="none"
    )
    torch.testing.assert_close(info_nce(s0, s, temperature=0.1), expected)


@pytest.mark.parametrize("k", KS)
def test_eqco_with_alpha_k_is_info_nce(k):
    s0, s = similarities(k)
    margin = eqco_margin(k, alpha=k, temperature=0.2)
    assert margin == 0
    assert torch.equal(
        info_nce(s0, s, temperature=0.2, margin=margin), info_nce(s0, s, temperature=0.2)
    )


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("alpha", [4.0, 256.0, 65536.0])
def test_three_forms_of_eqco_agree(k, alpha):
    """Margin on the positive, negatives scaled by α/K, and log(α/K) added to their logits."""
    tau = 0.2
    s0, s = similarities(k)
    loss = info_nce(s0, s, temperature=tau, margin=eqco_margin(k, alpha, tau))
    scaled = torch.exp(s / tau).sum(1) * alpha / k
    positive = torch.exp(s0 / tau)
    torch.testing.assert_close(loss, -torch.log(positive / (positive + scaled)))
    logits = torch.cat([s0[:, None] / tau, s / tau + math.log(alpha / k)], dim=1)
    torch.testing.assert_close(loss, -logits.log_softmax(1)[:, 0])


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("m", [-0.3, 0.0, 0.5, math.inf])
def test_the_gradient_is_w_times_that_of_the_decoupled_loss(k, tau, m):
    s0, s = (x.requires_grad_() for x in similarities(k))
    info_nce(s0, s, temperature=tau, margin=m).sum().backward()
    total = torch.exp(s.detach() / tau).sum(1)
    w = total / (torch.exp((s0.detach() - m) / tau) + total)
    torch.testing.assert_close(s0.grad, -w / tau, rtol=1e-8, atol=0)
    softmax = (s.detach() / tau).softmax(1)
    torch.testing.assert_close(s.grad, w[:, None] * softmax / tau, rtol=1e-8, atol=0)


def test_the_infinite_margin_is_the_limit_of_large_ones_less_their_constant():
    s0, s = similarities(16)
    tau, m = 0.2, 20.0
    limit = info_nce(s0, s, temperature=tau, margin=math.inf)
    torch.testing.assert_close(info_nce(s0, s, temperature=tau, margin=m) - m / tau, limit)


# d = 128, τ = 0.2, random unit negatives; per query, for K = 2, 4, 16, 64, 256; α = 256
KNOWN = {
    (0.5, "plain", "pull"): [0.150, 0.261, 0.590, 0.853, 0.959],
    (0.5, "eqco", "pull"): [0.954, 0.957, 0.958, 0.959, 0.959],
    (0.5, "plain", "norm"): [0.92, 1.47, 3.01, 4.23, 4.71],
    (0.5, "eqco", "norm"): [5.89, 5.35, 4.88, 4.75, 4.71],
    (0.8, "plain", "pull"): [0.038, 0.074, 0.244, 0.562, 0.838],
    (0.8, "eqco", "pull"): [0.827, 0.832, 0.836, 0.838, 0.838],
    (0.8, "plain", "loss"): [0.039, 0.077, 0.280, 0.826, 1.819],
    (0.8, "eqco", "loss"): [1.787, 1.805, 1.810, 1.820, 1.819],
}


@cache
def of_random_negatives(s0: float, variant: str) -> dict[str, list[float]]:
    """Each quantity for each K."""
    generator = torch.Generator().manual_seed(0)
    found: dict[str, list[float]] = {"pull": [], "norm": [], "loss": []}
    for k in (2, 4, 16, 64, 256):
        draws = 400_000 // (k + 60)
        q = torch.zeros(draws, 128, dtype=torch.float64)
        q[:, 0] = 1  # by symmetry any unit query serves
        q.requires_grad_()
        k0 = torch.zeros(128, dtype=torch.float64)
        k0[0], k0[1] = s0, math.sqrt(1 - s0**2)
        keys = torch.randn(draws, k, 128, generator=generator)
        keys = torch.nn.functional.normalize(keys, dim=2).double()
        margin = eqco_margin(k, 256, 0.2) if variant == "eqco" else 0.0
        positive = q @ k0
        positive.retain_grad()
        loss = info_nce(
            positive, torch.einsum("bd,bkd->bk", q, keys), temperature=0.2, margin=margin
        )
        loss.sum().backward()
        found["pull"].append(-0.2 * positive.grad.mean().item())
        found["norm"].append(q.grad.norm(dim=1).mean().item())
        found["loss"].append(loss.mean().item())
    return found


@pytest.mark.parametrize(("s0", "variant", "quantity"), KNOWN, ids=str)
def test_numbers_of_random_negatives(s0, variant, quantity):
    """EqCo keeps the pull 1 − p0 and the loss whatever K; the norm of the gradient it does not."""
    found, expected = of_random_negatives(s0, variant)[quantity], KNOWN[s0, variant, quantity]
    # 2 %, and half of the last digit that is known
    assert found == [pytest.approx(e, abs=0.02 * e + 0.0005) for e in expected]


@given(
    s0=st.floats(-1, 1),
    s=st.lists(st.floats(-1, 1), min_size=1, max_size=40),
    tau=st.floats(0.01, 10),
    m=st.floats(-2, 2) | st.just(math.inf),
)
def test_extreme_values_stay_finite(s0, s, tau, m):
    positive = torch.tensor([s0], requires_grad=True)
    negatives = torch.tensor([s], requires_grad=True)
    loss = info_nce(positive, negatives, temperature=tau, margin=m)
    loss.sum().backward()
    for value in (loss, positive.grad, negatives.grad):
        assert value.isfinite().all()
    if m < math.inf:
        assert loss.item() >= 0


def test_low_precision_is_summed_in_float32():
    s0, s = similarities(255, dtype=torch.float32)
    half = info_nce(s0.bfloat16(), s.bfloat16(), temperature=0.1)
    assert half.dtype == torch.float32
    exact = info_nce(s0.bfloat16().double(), s.bfloat16().double(), temperature=0.1)
    torch.testing.assert_close(half.double(), exact, rtol=1e-5, atol=1e-5)


@given(m=st.floats(-1, 1), change=st.floats(0.01, 1))
def test_the_margin_changes_the_loss(m, change):
    s0, s = similarities(16)
    before = info_nce(s0, s, temperature=0.2, margin=m)
    assert (info_nce(s0, s, temperature=0.2, margin=m + change) > before).all()


@pytest.mark.parametrize(
    ("shapes", "tau"),
    [(((3,), (3,)), 0.2), (((3,), (4, 2)), 0.2), (((3,), (3, 0)), 0.2), (((3,), (3, 2)), 0.0)],
)
def test_wrong_arguments_are_errors(shapes, tau):
    positive, negatives = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match="got"):
        info_nce(positive, negatives, temperature=tau)


@pytest.mark.parametrize("arguments", [(0, 256, 0.2), (1, 0, 0.2), (1, 256, 0), (1, -1, 0.2)])
def test_a_margin_out_of_range_is_an_error(arguments):
    with pytest.raises(ValueError, match="got"):
        eqco_margin(*arguments)
