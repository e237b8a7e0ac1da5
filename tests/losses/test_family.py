"""Gradient identities of the family, and independent implementations of its members.

The identities are those of arXiv 2010.01929, 2110.06848 and 2203.17248 in one notation: every
loss's gradient is W · g_DCL.
"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from eqco.losses import dcl, dclw, dual_temperature, eqco_margin, info_nce, macl, siglip, weight

EXTREMES = [0.01, 0.1, 1.0, 10.0]


def similarities(k: int, extreme: bool, b: int = 4) -> tuple[Tensor, Tensor]:
    draw = torch.rand(b, k + 1, generator=torch.Generator().manual_seed(k)).double() * 2 - 1
    draw = draw.sign() if extreme else draw
    return draw[:, 0].clone().requires_grad_(), draw[:, 1:].clone().requires_grad_()


def gradients(loss: Tensor, s0: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return torch.autograd.grad(loss.sum(), (s0, s))


def close(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-300)


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("k", [1, 16, 255, 65_536])
@pytest.mark.parametrize("tau", EXTREMES)
class TestGradients:
    def dcl(self, s0: Tensor, s: Tensor, tau: float, w: Tensor) -> tuple[Tensor, Tensor]:
        """w · g_DCL, written out."""
        return -w / tau, w[:, None] * (s.detach() / tau).softmax(1) / tau

    def test_eqco(self, k, tau, extreme):
        s0, s = similarities(k, extreme)
        for alpha in (1.0, 256.0, 65_536.0, 1e8):
            log_ratio = math.log(k / alpha) + s0.detach() / tau - (s.detach() / tau).logsumexp(1)
            w = 1 / (1 + log_ratio.exp())
            loss = info_nce(s0, s, temperature=tau, margin=eqco_margin(k, alpha, tau))
            close(gradients(loss, s0, s), self.dcl(s0, s, tau, w))

    def test_dcl(self, k, tau, extreme):
        s0, s = similarities(k, extreme)
        one = torch.ones_like(s0)
        close(gradients(dcl(s0, s, temperature=tau), s0, s), self.dcl(s0, s, tau, one))

    def test_dual_temperature(self, k, tau, extreme):
        s0, s = similarities(k, extreme)
        for inter in EXTREMES:
            logits = torch.cat([s0[:, None], s], dim=1).detach() / inter
            w = 1 - logits.softmax(1)[:, 0]
            # 1 − p loses digits where p is near 1: take it from the negatives' side
            w = torch.where(w < 1e-3, logits.log_softmax(1)[:, 1:].logsumexp(1).exp(), w)
            loss = dual_temperature(s0, s, intra=tau, inter=inter)
            close(gradients(loss, s0, s), self.dcl(s0, s, tau, w))

    def test_dual_temperature_with_one_temperature_is_info_nce(self, k, tau, extreme):
        s0, s = similarities(k, extreme)
        both = dual_temperature(s0, s, intra=tau, inter=tau)
        close(gradients(both, s0, s), gradients(info_nce(s0, s, temperature=tau), s0, s))

    def test_the_weight_of_dclw_is_on_the_positive_alone(self, k, tau, extreme):
        s0, s = similarities(k, extreme)
        sigma = 0.5
        w = 2 - len(s0) * (s0.detach() / sigma).softmax(0)
        assert w.mean().item() == pytest.approx(1)
        found = gradients(dclw(s0, s, temperature=tau, sigma=sigma), s0, s)
        close(found, (-w / tau, (s.detach() / tau).softmax(1) / tau))


def test_eqco_tends_to_dcl_as_alpha_grows():
    """L_EqCo − log(α/K) − L_DCL = log(1 + (K/α) exp(s0/τ)/S), and the gradient is off by 1 − W."""
    k, tau = 20, 0.2
    s0, s = similarities(k, extreme=False)
    limit = dcl(s0, s, temperature=tau)
    for alpha in (20, 256, 4096, 65_536, 1e8):
        loss = info_nce(s0, s, temperature=tau, margin=eqco_margin(k, alpha, tau))
        ratio = k / alpha * torch.exp(s0 / tau) / torch.exp(s / tau).sum(1)
        torch.testing.assert_close(loss - math.log(alpha / k) - limit, torch.log1p(ratio))
        w = weight(s0, s, temperature=tau, margin=eqco_margin(k, alpha, tau))
        torch.testing.assert_close(1 - w, ratio / (1 + ratio), rtol=1e-6, atol=1e-15)


def test_a_large_inter_temperature_gives_k_over_k_plus_1_times_dcl():
    k, tau = 31, 0.1
    s0, s = similarities(k, extreme=False)
    found = gradients(dual_temperature(s0, s, intra=tau, inter=1e6), s0, s)
    for a, b in zip(found, gradients(dcl(s0, s, temperature=tau), s0, s), strict=True):
        torch.testing.assert_close(a, b * k / (k + 1), rtol=1e-5, atol=0)


def test_the_papers_dual_temperature_has_this_gradient():
    s0, s = similarities(31, extreme=False)
    logits = torch.cat([s0[:, None], s], dim=1)
    p_alpha, p_beta = ((logits / tau).softmax(1)[:, 0] for tau in (0.1, 1.0))
    paper = ((1 - p_beta) / (1 - p_alpha)).detach() * -p_alpha.log()
    close(gradients(dual_temperature(s0, s), s0, s), gradients(paper, s0, s))


def flat_nce(s0: Tensor, s: Tensor, tau: float, *, positive: bool) -> Tensor:
    """exp(x − sg[x]), x the log of Σ exp((s_i − s0)/τ) over negatives, or positive and negatives.

    arXiv 2107.01152, and a copy of it in which the positive is left among the negatives.
    """
    differences = (s - s0[:, None]) / tau
    if positive:
        differences = torch.cat([torch.zeros_like(differences[:, :1]), differences], dim=1)
    x = differences.exp().sum(1).log()
    return (x - x.detach()).exp()


def test_flat_nce_has_the_gradient_of_dcl():
    s0, s = similarities(31, extreme=False)
    found = gradients(flat_nce(s0, s, 0.2, positive=False), s0, s)
    close(found, gradients(dcl(s0, s, temperature=0.2), s0, s))
    with_positive = gradients(flat_nce(s0, s, 0.2, positive=True), s0, s)
    close(with_positive, gradients(info_nce(s0, s, temperature=0.2), s0, s))


@pytest.mark.parametrize(("slope", "threshold"), [(0.5, 0.0), (1.0, 0.3), (0.0, 1.0)])
def test_macl_has_the_gradient_of_its_paper(slope, threshold):
    """sg[1/W] times InfoNCE at τ_a = τ_0 (1 + α (A − A_0)), written out."""
    s0, s = similarities(31, extreme=False)
    tau = 0.1 * (1 + slope * (s0.detach().mean() - threshold))
    p = (torch.cat([s0[:, None], s], dim=1) / tau).softmax(1)[:, 0]
    paper = (1 / (1 - p)).detach() * -p.log()
    found = macl(s0, s, temperature=0.1, slope=slope, threshold=threshold)
    close(gradients(found, s0, s), gradients(paper, s0, s))
    torch.testing.assert_close(found, dcl(s0, s, temperature=tau.item()))


@pytest.mark.parametrize("arguments", [(-0.1, 0.0), (1.1, 0.0), (0.5, -0.1), (0.5, 1.1)])
def test_a_temperature_that_may_not_be_positive_is_an_error(arguments):
    with pytest.raises(ValueError, match="0 ≤ α ≤ 1, 0 ≤ A_0 ≤ 1; got"):
        macl(*similarities(3, False), temperature=0.1, slope=arguments[0], threshold=arguments[1])


def test_gradient_through_the_weight_of_dclw_is_a_choice():
    s0, s = similarities(16, extreme=False)
    kept, cut = (dclw(s0, s, temperature=0.1, detach=detach) for detach in (False, True))
    assert torch.equal(kept, cut)
    through, around = (gradients(loss, s0, s) for loss in (kept, cut))
    assert not torch.allclose(through[0], around[0])
    assert torch.allclose(through[1], around[1])


LOSSES = {
    "info_nce": lambda s0, s: info_nce(s0, s, temperature=0.1),
    "eqco": lambda s0, s: info_nce(s0, s, temperature=0.1, margin=0.2),
    "dcl": lambda s0, s: dcl(s0, s, temperature=0.1),
    "dclw": lambda s0, s: dclw(s0, s, temperature=0.1),
    "dual_temperature": dual_temperature,
    "macl": lambda s0, s: macl(s0, s, temperature=0.1),
    "siglip": lambda s0, s: siglip(s0, s, temperature=0.1, margin=0.2),
}


@pytest.mark.parametrize("name", LOSSES)
def test_they_work_under_autocast_and_vmap_and_in_low_precision(name):
    loss = LOSSES[name]
    s0, s = (x.detach().float() for x in similarities(31, extreme=False))
    plain = loss(s0, s)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(loss(s0, s), plain)
    assert loss(s0.bfloat16(), s.bfloat16()).dtype == torch.float32
    stacked = torch.vmap(loss)(torch.stack([s0, -s0]), torch.stack([s, s]))
    torch.testing.assert_close(stacked[0], plain)
    torch.testing.assert_close(stacked[1], loss(-s0, s))


@pytest.mark.parametrize("name", LOSSES)
def test_they_compile_to_one_graph(name):
    s0, s = (x.detach() for x in similarities(31, extreme=False))
    compiled = torch.compile(LOSSES[name], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(s0, s), LOSSES[name](s0, s))


@given(
    tau=st.floats(0.01, 10),
    inter=st.floats(0.01, 10),
    s0=st.sampled_from([-1.0, 0.0, 1.0]),
    s=st.lists(st.sampled_from([-1.0, 0.3, 1.0]), min_size=1, max_size=9),
)
def test_no_infinity_in_float32(tau, inter, s0, s):
    positive = torch.tensor([s0, 0.5], requires_grad=True)
    negatives = torch.tensor([s, s], requires_grad=True)
    for loss in (
        dual_temperature(positive, negatives, intra=tau, inter=inter),
        dclw(positive, negatives, temperature=tau, sigma=inter),
        dcl(positive, negatives, temperature=tau),
        macl(positive, negatives, temperature=tau),
        siglip(positive, negatives, temperature=tau),
    ):
        for value in (loss, *torch.autograd.grad(loss.sum(), (positive, negatives))):
            assert value.isfinite().all()


# independent implementations ---------------------------------------------------------------------


def embeddings(n: int = 16, d: int = 32) -> tuple[Tensor, Tensor]:
    z = torch.randn(2, n, d, generator=torch.Generator().manual_seed(3))
    z[1] = z[0] + 0.5 * z[1]
    return tuple(F.normalize(z, dim=2))


def simclr_similarities(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
    """s0 (2N,) and both views of the other images (2N, 2N − 2)."""
    n, z = len(z1), torch.cat([z1, z2])
    s = z @ z.T
    same_image = torch.eye(n, dtype=torch.bool).repeat(2, 2)
    return torch.cat([s.diagonal(n), s.diagonal(-n)]), s[~same_image].view(2 * n, 2 * n - 2)


def equal_to(found: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(found, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tau", [0.07, 0.1, 0.5])
def test_lightlys_ntxent(tau):
    loss = pytest.importorskip("lightly.loss").NTXentLoss(temperature=tau)
    z1, z2 = embeddings()
    ours = info_nce(*simclr_similarities(z1, z2), temperature=tau).mean()
    equal_to(ours, loss(z1, z2))


@pytest.mark.parametrize("tau", [0.07, 0.1, 0.5])
def test_lightlys_dcl(tau):
    lightly = pytest.importorskip("lightly", minversion="1.5.21")  # wrong before
    from lightly.loss import DCLLoss

    assert lightly
    z1, z2 = embeddings()
    equal_to(dcl(*simclr_similarities(z1, z2), temperature=tau).mean(), DCLLoss(tau)(z1, z2))


@pytest.mark.parametrize("tau", [0.07, 0.1, 0.5])
@pytest.mark.parametrize("sigma", [0.3, 0.5])
def test_lightlys_dclw(tau, sigma):
    pytest.importorskip("lightly", minversion="1.5.21")
    from lightly.loss import DCLWLoss

    z1, z2 = embeddings()
    s0, s = simclr_similarities(z1, z2)
    n = len(z1)  # the weight's batch is one view's anchors
    halves = [dclw(s0[i], s[i], temperature=tau, sigma=sigma) for i in (slice(n), slice(n, None))]
    equal_to(torch.cat(halves).mean(), DCLWLoss(tau, sigma)(z1, z2))


@pytest.mark.parametrize(("tau", "slope", "threshold"), [(0.1, 0.5, 0.0), (0.5, 1.0, 0.4)])
def test_lightlys_macl(tau, slope, threshold):
    """Its gradient, as the values of the two forms differ."""
    loss = pytest.importorskip("lightly.loss").MACLLoss(tau, slope, threshold)
    z = [x.double().requires_grad_() for x in embeddings()]
    unit = [F.normalize(x, dim=1) for x in z]
    loss.eps = 0.0  # on 1/W
    ours = macl(*simclr_similarities(*unit), temperature=tau, slope=slope, threshold=threshold)
    close(torch.autograd.grad(ours.mean(), z), torch.autograd.grad(loss(*z), z))


@pytest.mark.parametrize("tau", [0.07, 0.1, 0.5])
def test_pytorch_metric_learnings_ntxent(tau):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    z1, z2 = embeddings()
    labels = torch.arange(len(z1)).repeat(2)
    theirs = losses.NTXentLoss(temperature=tau)(torch.cat([z1, z2]), labels)
    equal_to(info_nce(*simclr_similarities(z1, z2), temperature=tau).mean(), theirs)
