"""What a step says of itself, against values worked out by hand and known Gaussians."""

import math
from typing import get_args

import pytest
import torch
from helpers import TINY, cells
from torch import nn
from torch.nn import functional as F

from eqco.losses import eqco_margin, info_nce
from eqco.networks.encoder import Encoder
from eqco.study.cell import Cell
from eqco.study.fields import WITH_MARGIN, Loss
from eqco.study.load import load_study
from eqco.study.recipe import LossSettings, Network
from eqco.training import diagnostics
from eqco.training.loop import pretrain
from eqco.training.objective import NO_WEIGHT, objective, weights


def cell(**changes) -> Cell:
    values = {
        "method": "simo",
        "negatives": 5,
        "margin": 0.0,
        "alpha": None,
        "temperature": 0.2,
        "batch": 9,
        "lr": 0.1,
        "seed": 0,
    }
    return Cell.model_validate({**values, **changes})


@pytest.mark.parametrize(
    "changes", [{}, {"margin": "eqco", "alpha": 256.0}, {"margin": 0.4}], ids=str
)
def test_the_numbers_of_a_step(changes):
    chosen = cell(**changes)
    m = eqco_margin(5, 256, 0.2) if chosen.margin == "eqco" else chosen.margin
    generator = torch.Generator().manual_seed(0)
    q, k0 = (F.normalize(torch.randn(9, 8, generator=generator)) for _ in range(2))
    k = F.normalize(torch.randn(9, 5, 8, generator=generator), dim=2)
    q.requires_grad_()
    s0, s = (q * k0).sum(1), (q[:, None] * k).sum(2)
    losses = info_nce(s0, s, temperature=0.2, margin=m)
    losses.mean().backward()
    found = diagnostics.measure(s0, s, q.grad, chosen, LossSettings())
    w, norms = [], []
    for i in range(9):  # anchor by anchor, from the definitions
        total = sum(math.exp(x / 0.2) for x in s[i].tolist())
        w.append(total / (math.exp((s0[i].item() - m) / 0.2) + total))
        pull = ((s[i] / 0.2).softmax(0)[:, None] * k[i]).sum(0) - k0[i]
        norms.append(w[-1] / 0.2 * pull.norm().item())
    w = torch.tensor(w)
    expected = [w.mean(), w.std(correction=0) / w.mean(), s0.mean(), s.mean()]
    torch.testing.assert_close(found[:4], torch.stack(expected))
    assert found[4].item() == pytest.approx(sum(norms) / 9, rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        *[{}, {"margin": "eqco", "alpha": 256.0}, {"margin": math.inf}],
        *[{"loss": loss} for loss in get_args(Loss) if loss not in ("info-nce", *NO_WEIGHT)],
        *[{"loss": loss, "margin": 0.4} for loss in WITH_MARGIN if loss not in NO_WEIGHT],
    ],
    ids=str,
)
def test_the_weight_is_that_of_the_loss(changes):
    """W is −τ ∂L/∂s0 for every loss with a weight, by autograd."""
    chosen, settings = cell(**changes), LossSettings(inter=0.7, constant=0.3, scalar_negatives=3)
    generator = torch.Generator().manual_seed(0)
    s0 = torch.rand(9, generator=generator).requires_grad_()
    s = 2 * torch.rand(9, 5, generator=generator) - 1
    objective(chosen, settings)(s0, s).sum().backward()
    found = weights(chosen, settings, s0.detach(), s)
    torch.testing.assert_close(found, -0.2 * s0.grad)
    numbers = diagnostics.measure(s0.detach(), s, torch.ones(9, 3), chosen, settings)
    torch.testing.assert_close(numbers[0], found.mean())


def test_some_losses_have_no_weight(study_with, digits):
    for loss in NO_WEIGHT:
        assert weights(cell(loss=loss), LossSettings(), torch.ones(2), torch.ones(2, 3)) is None
    block = {"methods": ["simclr"], "negatives": [4], "margins": [0], "losses": ["dclw"]}
    study = study_with({"grid": [{**block, "seeds": [0]}]})
    (chosen,) = cells(study).values()
    _, history = pretrain(study, chosen, digits, device=torch.device("cpu"))
    assert (history[0]["weight"], history[0]["weight_cv"]) == (None, None)
    assert history[0]["gradient"] > 0


def test_the_bound_is_log_1_plus_alpha_less_the_loss():
    assert diagnostics.bound(cell(margin="eqco", alpha=256.0), 2.0) == pytest.approx(
        math.log(257) - 2
    )
    assert diagnostics.bound(cell(), 1.0) == pytest.approx(math.log(6) - 1)
    assert diagnostics.bound(cell(margin=1e4), 0.0) == pytest.approx(math.log(5) + 5e4)
    assert diagnostics.bound(cell(margin=math.inf), 0.0) is None
    assert diagnostics.bound(cell(loss="dual-temperature"), 0.0) is None


def gaussian_bound(k: int, alpha: float, information: float = 2.0) -> float:
    """The bound with the optimal critic for jointly Gaussian pairs of known information."""
    rho = math.sqrt(1 - math.exp(-2 * information))
    generator = torch.Generator().manual_seed(k)
    x = torch.randn(4000, generator=generator).double()
    positive = rho * x + math.sqrt(1 - rho**2) * torch.randn(4000, generator=generator)
    other = torch.randn(4000, k, generator=generator).double()

    def critic(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:  # log p(y | x)/p(y)
        return -0.5 * math.log(1 - rho**2) - (y - rho * x) ** 2 / (2 * (1 - rho**2)) + y**2 / 2

    margin = eqco_margin(k, alpha, 1.0)
    loss = info_nce(critic(positive, x), critic(other, x[:, None]), temperature=1.0, margin=margin)
    chosen = cell(negatives=k, margin="eqco", alpha=alpha, temperature=1.0)
    bound = diagnostics.bound(chosen, loss.mean().item())
    assert bound is not None
    return bound


def test_with_alpha_k_it_bounds_the_information_and_approaches_it():
    found = [gaussian_bound(k, alpha=k) for k in (2, 16, 256, 1024)]
    assert found == sorted(found)
    assert all(value < 2.05 for value in found)
    assert found[-1] == pytest.approx(2, abs=0.1)


def test_with_alpha_above_k_it_is_no_bound():
    assert gaussian_bound(2, alpha=256) > 2.5


def test_the_history_of_a_training_has_them(digits):
    study = load_study(TINY)
    for chosen in list(cells(study).values())[:3:2]:
        _, history = pretrain(study, chosen, digits, device=torch.device("cpu"))
        (entry,) = history
        assert {*diagnostics.NAMES, *diagnostics.STEP_NAMES, "bound"} <= entry.keys()
        assert entry["parameter_gradient"] > 0
        assert 0 < entry["angular_step"] < 1
        size = entry["weight"] * math.sqrt(1 + entry["weight_cv"] ** 2)
        assert entry["effective_rate"] == pytest.approx(entry["lr"] * size)
        assert 0 < entry["weight"] < 1
        assert entry["positive"] > entry["negative"]
        assert entry["gradient"] > 0


def test_the_layers_before_batch_norm():
    """By a factor on their weights, which changes nothing but rounding."""
    torch.manual_seed(0)
    network = Network(backbone="resnet18", stem="small", projector=[16, 8])
    encoder = Encoder(network, 3).double()
    for module in encoder.modules():
        if hasattr(module, "running_mean"):
            module.eps = 1e-12
    images = torch.rand(8, 3, 16, 16, dtype=torch.float64)
    before = encoder(images)
    chosen = diagnostics.before_batch_norm(encoder)
    with torch.no_grad():
        for weight in chosen:
            weight.mul_(3)
    torch.testing.assert_close(encoder(images), before)
    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert {id(c.weight) for c in convolutions} <= {id(weight) for weight in chosen}


def test_the_step_of_the_weights():
    """Against the angle by the law of cosines, in float64; it is small in a training."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5), nn.Linear(5, 2)
    ).double()
    network(torch.randn(9, 6, dtype=torch.float64)).square().mean().backward()
    squares = sum(float(p.grad.square().sum()) for p in network.parameters())
    old = network[0].weight.detach().clone()
    step = diagnostics.Step(network)
    torch.optim.SGD(network.parameters(), lr=1e-3).step()
    gradient, angle = step.measure().tolist()
    assert gradient == pytest.approx(math.sqrt(squares))
    new = network[0].weight.detach()
    cosine = float((old * new).sum() / old.norm() / new.norm())
    assert angle == pytest.approx(math.acos(cosine), rel=1e-4)
    assert math.isnan(diagnostics.Step(network[2]).measure()[1])


def turned(lr: float, decay: float, scale: float, size: float = 1) -> float:
    """The mean angular step of weights before batch norm whose loss is ``scale`` times noise.

    They start with the norm ``size``.
    """
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 1, bias=False), nn.BatchNorm1d(1, affine=False))
    weight = network[0].weight
    with torch.no_grad():
        weight.mul_(size / weight.norm())
    optimizer = torch.optim.SGD([weight], lr=lr, momentum=0.9, weight_decay=decay)
    found = []
    for i in range(4000):
        noise, w = torch.randn(weight.shape, generator=generator), weight.detach()
        # a gradient of a function of w / ‖w‖: orthogonal to w, and as 1 / ‖w‖
        weight.grad = scale * (noise - (noise * w).sum() / w.square().sum() * w) / w.norm()
        step = diagnostics.Step(network) if i > 2000 else None
        optimizer.step()
        if step:
            found.append(step.measure()[1])
    return float(torch.stack(found).mean())


def test_in_equilibrium_the_angle_is_that_of_rate_and_decay():
    """√(2 lr wd / (1 + μ)) where the gradient is noise, whatever the size of the loss.

    Scale-invariant weights under SGD with momentum and L2 (Wan et al., arXiv 2006.08419).
    """
    lr, decay = 0.05, 0.05
    whole, part = (turned(lr, decay, scale) for scale in (1.0, 0.3))
    assert part == pytest.approx(whole, rel=0.05)
    assert whole == pytest.approx(math.sqrt(2 * lr * decay / 1.9), rel=0.05)


def test_before_equilibrium_the_angle_follows_the_size_of_the_loss():
    """(1 − μ) / (4 lr wd) = 25,000 steps are needed here, of which there are 4,000.

    As in a network, the weights are large beside what the gradient adds to them.
    """
    whole, part = (turned(0.01, 1e-4, scale, size=30) for scale in (1.0, 0.3))
    assert part < 0.8 * whole
