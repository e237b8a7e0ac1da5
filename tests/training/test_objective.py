"""The controls: which weight each puts on DCL's gradient, from its definition, by autograd."""

import math

import pytest
import torch
from torch import Tensor

from eqco.losses import SharedNegatives
from eqco.study.cell import Cell
from eqco.study.recipe import LossSettings
from eqco.training.objective import objective

TAU, A, K = 0.2, 7, 5


def cell(loss: str, margin: float) -> Cell:
    recipe = {"method": "simo", "batch": A, "lr": 0.1, "seed": 0, "alpha": None}
    return Cell.model_validate(
        {**recipe, "loss": loss, "margin": margin, "negatives": K, "temperature": TAU}
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


@pytest.mark.parametrize("loss", ["dcl-rolled", "dcl-by-negatives", "dcl-by-positive"])
def test_a_queue_that_all_anchors_share_gives_the_same(loss):
    generator = torch.Generator().manual_seed(3)
    q, keys = torch.randn(A, 8, generator=generator), torch.randn(K, 8, generator=generator)
    shared, s0 = SharedNegatives(q / 8, keys), torch.rand(A, generator=generator)
    of = objective(cell(loss, 0.0), LossSettings())
    torch.testing.assert_close(of(s0, shared), of(s0, shared.dense()))
