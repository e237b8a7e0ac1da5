"""The optimisers: the rule, what does not change it, and a restart between two steps."""

import pytest
import torch
from helpers import cells
from torch import nn

from eqco.study.methods import METHODS
from eqco.training.optimizers import NormalisedSGD
from eqco.training.step import Training

CPU = torch.device("cpu")


def test_normalised_sgd_is_its_rule():
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(n, generator=generator, dtype=torch.float64) for n in (3, 5)]
    params = [nn.Parameter(x.clone()) for x in start]
    optimizer = NormalisedSGD(params, lr=0.1, momentum=0.9, decay=0.5)
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
    optimizer = NormalisedSGD([p], lr=0.1, momentum=0.9, decay=0.0)
    p.grad = torch.zeros(2)
    optimizer.step()
    assert torch.equal(p.data, torch.ones(2))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("margin", "loss"), [(0, "info-nce-rescaled"), (float("inf"), "dcl-rescaled")]
)
def test_no_factor_of_the_loss_matters(study_with, digits, method, margin, loss):
    """InfoNCE and InfoNCE / mean W, DCL and DCL x mean W: the same encoder, by this rule alone."""
    block = {"methods": [method], "negatives": [16], "seeds": [0]}
    grid = [{**block, "margins": [margin]}, {**block, "margins": [0], "losses": [loss]}]
    changes = {"grid": grid, "pretrain.queue": 64, "pretrain.lr": 0.05}

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


def test_it_continues_after_a_step_in_the_same_bytes(study_with, digits):
    study = study_with({"pretrain.optimizer": "normalised-sgd", "pretrain.epochs": 2})
    cell = next(iter(cells(study).values()))
    whole = Training(study, cell, digits, CPU)
    for _ in range(6):
        resumed = Training(study, cell, digits, CPU)
        resumed.restore(whole.step, {k: x.clone() for k, x in whole.tensors().items()})
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
