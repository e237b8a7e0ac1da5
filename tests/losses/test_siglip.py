"""SigLIP's loss against its pseudo-code's matrix, its gradient by hand, and its mean over draws."""

import math
from functools import partial
from itertools import combinations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from eqco.losses import eqco_margin, info_nce, siglip

TAU, ALPHA = 0.2, 64.0


def similarities(k: int, b: int = 5) -> tuple[Tensor, Tensor]:
    draw = 2 * torch.rand(b, k + 1, generator=torch.Generator().manual_seed(k)).double() - 1
    return draw[:, 0].clone().requires_grad_(), draw[:, 1:].clone().requires_grad_()


@pytest.mark.parametrize("bias", [-10.0, -2.0])
def test_it_is_the_papers_loss_of_all_pairs_of_a_batch(bias):
    """−(1/N) Σ_ij log σ(z_ij (t x_i·y_j + b)), z = 1 on the diagonal and −1 off it."""
    generator = torch.Generator().manual_seed(0)
    x, y = (F.normalize(torch.randn(6, 4, generator=generator).double()) for _ in range(2))
    logits = x @ y.T / TAU + bias
    theirs = -F.logsigmoid((2 * torch.eye(6) - 1) * logits).sum() / 6
    s = x @ y.T
    others = s[~torch.eye(6, dtype=torch.bool)].view(6, 5)
    ours = siglip(s.diagonal(), others, temperature=TAU, bias=bias).mean()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("b", [-10.0, -2.0])
@pytest.mark.parametrize("k", [1, 16, 255])
def test_the_gradient_is_a_pull_and_a_push_of_each_pair_by_itself(k, b):
    s0, s = similarities(k)
    loss = siglip(s0, s, temperature=TAU, bias=b, margin=eqco_margin(k, ALPHA, TAU))
    pull, push = torch.autograd.grad(loss.sum(), (s0, s))
    torch.testing.assert_close(-TAU * pull, 1 / (1 + torch.exp(s0.detach() / TAU + b)))
    torch.testing.assert_close(TAU * push, ALPHA / k / (1 + torch.exp(-s.detach() / TAU - b)))


def test_its_pull_at_log_alpha_is_eqcos_weight_at_a_mean_of_1():
    s0, _ = similarities(3)
    orthogonal = torch.zeros(5, 3).double()  # exp(s_i/τ) = 1
    margin = eqco_margin(3, ALPHA, TAU)
    for loss in (partial(siglip, bias=-math.log(ALPHA)), info_nce):
        value = loss(s0, orthogonal, temperature=TAU, margin=margin).sum()
        (pull,) = torch.autograd.grad(value, s0)
        torch.testing.assert_close(-TAU * pull, ALPHA / (torch.exp(s0.detach() / TAU) + ALPHA))


@pytest.mark.parametrize("loss", [siglip, info_nce])
def test_its_mean_over_draws_is_the_same_for_every_k(loss):
    """Loss and gradient over every choice of K of 6 negatives; EqCo's is so for large K alone."""
    s0, s = similarities(6)

    def mean(k: int) -> list[Tensor]:
        margin = eqco_margin(k, ALPHA, TAU)
        choices = [list(choice) for choice in combinations(range(6), k)]
        values = [loss(s0, s[:, c], temperature=TAU, margin=margin) for c in choices]
        value = torch.stack(values).mean(0)
        return [value, *torch.autograd.grad(value.sum(), (s0, s))]

    whole = mean(6)
    for k in (1, 2, 4):
        for found, expected in zip(mean(k), whole, strict=True):
            assert torch.allclose(found, expected, rtol=1e-12, atol=1e-15) == (loss is siglip)


@pytest.mark.parametrize("margin", [math.inf, -math.inf, math.nan])
def test_a_margin_without_a_factor_is_an_error(margin):
    with pytest.raises(ValueError, match="a finite margin; got"):
        siglip(*similarities(3), temperature=TAU, margin=margin)
