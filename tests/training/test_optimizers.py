"""The optimisers: the rule, what does not change it, and a restart between two steps."""

import math
from typing import get_args

import pytest
import torch
from helpers import cells
from lightly.utils.lars import LARS as Lightlys
from torch import nn

from eqco.store.checkpoint import Checkpoints, State
from eqco.study.fields import Optimizer
from eqco.study.methods import METHODS
from eqco.training.optimizers import LARS, NormalisedSGD
from eqco.training.step import Training

CPU = torch.device("cpu")


def test_normalised_sgd_is_its_rule():
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(n, generator=generator, dtype=torch.float64) for n in (3, 5)]
    params = [nn.Parameter(x.clone()) for x in start]
    groups = [{"params": params, "decay": 0.5}]
    optimizer = NormalisedSGD(groups, lr=0.1, momentum=0.9)
    theta, v = torch.cat(start), torch.zeros(8, dtype=torch.float64)
    for scale in (1e-3, 1.0, 1e5):  # no factor matters
        g = torch.randn(8, generator=generator, dtype=torch.float64)
        v = 0.9 * v + g / g.norm()
        theta = (1 - 0.1 * 0.5) * theta - 0.1 * v
        for p, part in zip(params, g.split([3, 5]), strict=True):
            p.grad = scale * part
        optimizer.step()
        torch.testing.assert_close(torch.cat([p.data for p in params]), theta)


def test_a_gradient_of_zero_stays_zero():
    p = nn.Parameter(torch.ones(2))
    optimizer = NormalisedSGD([{"params": [p], "decay": 0.0}], lr=0.1, momentum=0.9)
    p.grad = torch.zeros(2)
    optimizer.step()
    assert torch.equal(p.data, torch.ones(2))


SAME = [(0, "info-nce-rescaled"), (math.inf, "dcl-rescaled")]
MORE = [(0, "info-nce-rescaled-rms"), (math.inf, "dcl-rescaled-rms"), (math.inf, "dcl-constant")]


@pytest.mark.parametrize(
    ("method", "margin", "loss"),
    [("simo", *same) for same in SAME + MORE]
    + [
        # a loss knows no method
        pytest.param(method, *same, marks=[pytest.mark.slow] * (i > 0 or method == "dhel"))
        for method in METHODS
        if method != "simo"
        for i, same in enumerate(SAME)
    ],
)
def test_no_factor_of_the_loss_matters(study_with, digits, method, margin, loss):
    """InfoNCE and InfoNCE / mean W, DCL and DCL x mean W: the same encoder, by this rule alone."""
    block = {"methods": [method], "negatives": [16], "seeds": [0]}
    grid = [{**block, "margins": [margin]}, {**block, "margins": [0], "losses": [loss]}]
    changes = {"grid": grid, "pretrain.queue": 64, "pretrain.lr": 0.05, "loss": {"constant": 0.3}}

    def encoders(optimizer: str) -> list[torch.Tensor]:
        study = study_with({**changes, "pretrain.optimizer": optimizer})
        found = []
        for cell in cells(study).values():
            training = Training(study, cell, digits, CPU)
            training.method.double()
            views = training.views
            training.views = lambda step, views=views: [view.double() for view in views(step)]
            for _ in range(3):
                training.advance()
            found.append(torch.cat([p.detach().flatten() for p in training.encoder.parameters()]))
        return found

    torch.testing.assert_close(*encoders("normalised-sgd"), rtol=1e-9, atol=1e-12)
    one, other = encoders("sgd")
    assert (one - other).abs().max() > 1e-4


def test_lars_is_lightly_s():
    """Which skips the adaptation of what has no decay, as SimCLR does of batch norm and biases."""
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(n, generator=generator, dtype=torch.float64) for n in ((3, 4), (5, 2), 4)]
    ours, theirs = ([nn.Parameter(x.clone()) for x in start] for _ in range(2))
    one = LARS(ours[:2], ours[2:], lr=0.3, momentum=0.9, decay=0.1)
    groups = [{"params": theirs[:2], "weight_decay": 0.1}, {"params": theirs[2:]}]
    other = Lightlys(groups, lr=0.3, momentum=0.9, eps=0)
    for scale in (1.0, 1e-3, 1e3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = scale * torch.randn(p.shape, generator=generator, dtype=p.dtype)
            q.grad = p.grad.clone()
        one.step()
        other.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    assert max((p - x).abs().max() for p, x in zip(ours, start, strict=True)) > 0.1


def test_lars_leaves_a_weight_of_zero_unadapted():
    p = nn.Parameter(torch.zeros(2, 2))
    optimizer = LARS([p], [], lr=0.1, momentum=0.9, decay=1e-6)
    p.grad = torch.ones(2, 2)
    optimizer.step()
    torch.testing.assert_close(p.data, torch.full((2, 2), -0.1))


@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_norm_and_bias_need_not_decay(study_with, digits, optimizer):
    """Where the gradient is 0 a step is the decay alone."""
    changes = {"pretrain.optimizer": optimizer, "pretrain.weight_decay": 0.1}
    changes |= {"pretrain.lr": 0.5, "network.projector_norm": "hidden"}  # the last layer has a bias

    def shrunk(decay_norm_and_bias: bool) -> list[float]:
        study = study_with({**changes, "pretrain.decay_norm_and_bias": decay_norm_and_bias})
        training = Training(study, next(iter(cells(study).values())), digits, CPU)
        parameters = [p for p in training.method.parameters() if p.requires_grad]
        for p in parameters:
            p.data.fill_(1.0)
            p.grad = torch.zeros_like(p)
        training.optimizer.step()
        kinds = ([p.flatten() for p in parameters if (p.ndim > 1) == weight] for weight in (1, 0))
        return [round(x, 6) for kind in kinds for x in torch.cat(kind).unique().tolist()]

    assert shrunk(False) == [0.95, 1.0]
    assert shrunk(True) == [0.95, 1.0 if optimizer == "lars" else 0.95]


@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_it_continues_after_a_step_in_the_same_bytes(study_with, digits, tmp_path, optimizer):
    study = study_with({"pretrain.optimizer": optimizer, "pretrain.epochs": 2})
    cell = next(iter(cells(study).values()))
    checkpoints = Checkpoints(tmp_path, {})
    whole = Training(study, cell, digits, CPU)
    for _ in range(6):
        checkpoints.save(State(whole.step, whole.tensors(), {}))
        saved = checkpoints.load()
        assert saved is not None
        resumed = Training(study, cell, digits, CPU)
        resumed.restore(saved.step, saved.tensors)
        whole.advance()
        resumed.advance()
        for name, tensor in whole.tensors().items():
            assert torch.equal(tensor, resumed.tensors()[name]), name


def test_as_an_axis_it_is_part_of_the_path(study_with):
    study = study_with({"grid.0.optimizers": ["sgd", "normalised-sgd"], "grid.0.lrs": [0.1]})
    first, second = list(cells(study))[0:4:2]
    assert first == "method~simo/negatives~1/margin~0/optimizer~sgd/lr~0.1/seed~0"
    assert "optimizer~normalised-sgd" in second
    (axis, recipe) = (study, study_with({"pretrain.optimizer": "normalised-sgd"}))
    config = axis.resolve(cells(axis)[second])
    assert config["cell"]["optimizer"] == "normalised-sgd"
    assert "optimizer" not in config["pretrain"]
    config = recipe.resolve(next(iter(cells(recipe).values())))
    assert config["pretrain"]["optimizer"] == "normalised-sgd"
    assert "optimizer" not in config["cell"]
