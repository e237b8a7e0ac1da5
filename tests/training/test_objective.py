"""The controls: which weight each puts on DCL's gradient, from its definition, by autograd."""

import math

import pytest
import torch
from helpers import cells
from torch import Tensor

from eqco.losses import SharedNegatives
from eqco.study.cell import Cell
from eqco.study.recipe import LossSettings
from eqco.training.objective import draws, objective
from eqco.training.step import Training

TAU, A, K = 0.2, 7, 5


def cell(loss: str, margin: float | str = 0.0, k: int = K) -> Cell:
    recipe = {"method": "simo", "batch": A, "lr": 0.1, "seed": 0, "alpha": 256.0}
    return Cell.model_validate(
        {**recipe, "loss": loss, "margin": margin, "negatives": k, "temperature": TAU}
    )


def drawn(anchors: int = A) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    s = 2 * torch.rand(anchors, K + 1, generator=generator).double() - 1
    return s[:, 0], s[:, 1:]


def weights_of(loss: str, s0: Tensor, s: Tensor, margin: float = 0.0) -> Tensor:
    """−τ ∂L/∂s0, once the gradient is a weight times DCL's in the negatives too."""
    s0, s = s0.clone().requires_grad_(), s.clone().requires_grad_()
    value = objective(cell(loss, margin), LossSettings(constant=0.3))(s0, s).sum()
    pull, push = torch.autograd.grad(value, (s0, s))
    p = (s.detach() / TAU).softmax(1)
    torch.testing.assert_close(push, -pull[:, None] * p)
    return -TAU * pull


def by_hand(s0: list[float], sums: list[float], margin: float) -> list[float]:
    return [S / (math.exp((s - margin) / TAU) + S) for s, S in zip(s0, sums, strict=True)]


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_the_weights_of_the_controls(margin):
    s0, s = drawn()
    positives = s0.tolist()
    sums = [sum(math.exp(x / TAU) for x in row) for row in s.tolist()]
    w = by_hand(positives, sums, 0.0)
    mean, rms = sum(w) / A, math.sqrt(sum(x * x for x in w) / A)
    expected = {
        "info-nce": by_hand(positives, sums, margin),
        "info-nce-rescaled": [x / mean for x in w],
        "info-nce-rescaled-rms": [x / rms for x in w],
        "dcl-rescaled": [mean] * A,
        "dcl-rescaled-rms": [rms] * A,
        "dcl-constant": [0.3] * A,
        "dcl-rolled": [by_hand(positives, sums, margin)[i - 1] for i in range(A)],
        "dcl-by-negatives": by_hand([sum(positives) / A] * A, sums, margin),
        "dcl-by-positive": by_hand(positives, [math.prod(sums) ** (1 / A)] * A, margin),
    }
    for loss, weights in expected.items():
        found = weights_of(loss, s0, s, margin)
        torch.testing.assert_close(found, torch.tensor(weights).double(), msg=loss)


def test_a_weight_reads_its_part_of_an_anchor_alone():
    s0, s = drawn()
    order = torch.randperm(A, generator=torch.Generator().manual_seed(1))
    by_negatives, by_positive = "dcl-by-negatives", "dcl-by-positive"
    torch.testing.assert_close(
        weights_of(by_negatives, s0[order], s), weights_of(by_negatives, s0, s)
    )
    torch.testing.assert_close(
        weights_of(by_positive, s0, s[order]), weights_of(by_positive, s0, s)
    )
    # the other part makes no difference where it is the same for all
    same = torch.full_like(s0, 0.4)
    torch.testing.assert_close(weights_of(by_negatives, same, s), weights_of("info-nce", same, s))
    same = s[:1].expand_as(s)
    torch.testing.assert_close(weights_of(by_positive, s0, same), weights_of("info-nce", s0, same))


@pytest.mark.parametrize("margin", [0.0, 0.3, "eqco"])
@pytest.mark.parametrize(("k", "k_s"), [(5, 2), (2, 5), (1, 4), (4, 4)])
def test_the_weight_may_be_of_other_negatives_than_the_direction(k, k_s, margin):
    s0, s = (x.requires_grad_() for x in drawn())
    chosen, settings = (
        cell("dcl-by-scalar-negatives", margin, k),
        LossSettings(scalar_negatives=k_s),
    )
    assert draws(chosen, settings) == max(k, k_s)
    pull, push = torch.autograd.grad(objective(chosen, settings)(s0, s).sum(), (s0, s))
    m = TAU * math.log(256 / k_s) if margin == "eqco" else margin
    sums = [sum(math.exp(x / TAU) for x in row[:k_s]) for row in s.tolist()]
    w = torch.tensor(by_hand(s0.tolist(), sums, m)).double()
    torch.testing.assert_close(-TAU * pull, w)
    p = (s.detach()[:, :k] / TAU).softmax(1)
    torch.testing.assert_close(push[:, :k], w[:, None] * p / TAU)
    assert not push[:, k:].any()
    if k == k_s:
        plain = objective(cell("info-nce", margin, k), settings)(s0, s[:, :k]).sum()
        for one, other in zip((pull, push), torch.autograd.grad(plain, (s0, s)), strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("sampling", ["shared", "independent"])
@pytest.mark.parametrize("method", ["simo", "moco", "simclr"])
def test_other_negatives_leave_those_of_the_direction(study_with, digits, method, sampling):
    """K and K_s are the beginnings of one draw, that of the loss that reads K alone."""
    block = {"methods": [method], "negatives": [6], "margins": [0], "seeds": [0]}
    split = {
        **block,
        "losses": ["dcl-by-scalar-negatives"],
        "with": {"loss.scalar_negatives": [2, 9]},
    }
    changes = {"pretrain.queue": 64, "pretrain.sampling": sampling, "pretrain.batch": 16}
    study, found = study_with({**changes, "grid": [block, split]}), []
    for one in cells(study).values():
        training = Training(study, one, digits, torch.device("cpu"))
        generator = torch.Generator().manual_seed(0)
        _, s = training.method(*training.views(0), generator)
        found.append(s.dense() if isinstance(s, SharedNegatives) else s)
    plain, few, many = found
    assert [plain.shape[1], few.shape[1], many.shape[1]] == [6, 6, 9]
    torch.testing.assert_close(few, plain)
    torch.testing.assert_close(many[:, :6], plain)


def test_only_the_root_mean_square_keeps_the_norm_of_a_noisy_gradient():
    """The norm of a weighted mean of independent directions, against that of the plain mean."""
    s0, s = drawn(anchors=4000)
    s0 = s0 + 1.5  # so that weights differ much
    directions = torch.randn(4000, 500, generator=torch.Generator().manual_seed(2)).double()

    def norm(loss: str) -> float:
        return (weights_of(loss, s0, s)[:, None] * directions).mean(0).norm().item()

    w = weights_of("info-nce", s0, s)
    excess = (1 + (w.std(correction=0) / w.mean()).item() ** 2) ** 0.5
    assert excess > 1.5
    plain = directions.mean(0).norm().item()
    assert norm("info-nce-rescaled-rms") / plain == pytest.approx(1, abs=0.1)
    assert norm("info-nce-rescaled") / plain == pytest.approx(excess, rel=0.1)
    assert norm("dcl-rescaled-rms") / norm("info-nce") == pytest.approx(1, abs=0.1)
    assert norm("dcl-rolled") / norm("info-nce") == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "loss", ["dcl-rolled", "dcl-by-negatives", "dcl-by-positive", "dcl-by-scalar-negatives"]
)
def test_a_queue_that_all_anchors_share_gives_the_same(loss):
    generator = torch.Generator().manual_seed(3)
    q, keys = torch.randn(A, 8, generator=generator), torch.randn(K, 8, generator=generator)
    shared, s0 = SharedNegatives(q / 8, keys), torch.rand(A, generator=generator)
    of = objective(cell(loss), LossSettings(scalar_negatives=2))
    torch.testing.assert_close(of(s0, shared), of(s0, shared.dense()))
