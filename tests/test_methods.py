"""SiMo against a plain re-statement of its step."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from eqco.methods import SiMo
from eqco.negatives import sample_others
from eqco.networks import Encoder
from eqco.params import Cell, Network

NETWORK = Network(backbone="conv5", stride=1, projector=[16, 8])
N, K = 12, 5


def cell(**changes) -> Cell:
    values = {
        "method": "simo",
        "negatives": K,
        "margin": "eqco",
        "alpha": 256.0,
        "temperature": 0.2,
        "seed": 0,
    }
    return Cell.model_validate({**values, **changes})


def simo(chosen: Cell | None = None, *, ema: float = 0.9, shared: bool = True) -> SiMo:
    torch.manual_seed(0)
    return SiMo(Encoder(NETWORK, channels=1), chosen or cell(), ema=ema, shared=shared)


def views(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(2, N, 1, 8, 8, generator=generator))


def step(model: SiMo, seed: int = 7) -> torch.Tensor:
    return model(*views(), torch.Generator().manual_seed(seed))


def by_hand(model: SiMo, alpha_over_k: float, tau: float, seed: int = 7) -> torch.Tensor:
    """The loss from copies of the encoders, query by query, exponential by exponential."""
    query, key = copy.deepcopy(model.query), copy.deepcopy(model.key)
    x1, x2 = views()
    q = query(x1)
    for a, b in zip(key.parameters(), query.parameters(), strict=True):
        a.data = model.ema * a.data + (1 - model.ema) * b.data
    k = key(x2)
    others = sample_others(N, K, torch.Generator().manual_seed(seed), shared=model.shared)
    losses = []
    for i in range(N):
        positive = math.exp(F.cosine_similarity(q[i], k[i], dim=0).item() / tau)
        negatives = sum(
            math.exp(F.cosine_similarity(q[i], k[j], dim=0).item() / tau) for j in others[i]
        )
        losses.append(-math.log(positive / (positive + alpha_over_k * negatives)))
    return torch.tensor(losses)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("margin", "factor"), [("eqco", 256 / K), (0.0, 1.0), (0.2, math.e)])
def test_the_loss_of_every_query(margin, factor, shared):
    alpha = 256.0 if margin == "eqco" else None
    model = simo(cell(margin=margin, alpha=alpha), shared=shared)
    for parameter in model.key.parameters():  # the key encoder is not the query's copy any more
        parameter.data.mul_(0.7).add_(0.01)
    expected = by_hand(model, factor, 0.2)
    torch.testing.assert_close(step(model), expected, rtol=1e-5, atol=1e-5)


def test_the_key_encoder_follows_by_moving_average_of_parameters_alone():
    model = simo(ema=0.75)
    before = [p.clone() for p in model.key.parameters()]
    for parameter in model.query.parameters():
        parameter.data.add_(1.0)
    query_statistics = [b.clone() for b in model.query.buffers()]
    key_statistics = [b.clone() for b in model.key.buffers()]
    step(model)
    for old, new, query in zip(
        before, model.key.parameters(), model.query.parameters(), strict=True
    ):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * query)
    # both are in train mode: each has updated its own batch-norm statistics
    for old, new in zip(query_statistics, model.query.buffers(), strict=True):
        assert not torch.equal(old, new)
    for old, new in zip(key_statistics, model.key.buffers(), strict=True):
        assert not torch.equal(old, new)


def test_gradient_goes_to_the_query_encoder_alone():
    model = simo()
    step(model).mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.query.parameters())
    assert all(p.grad is None for p in model.key.parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"negatives": K + 1},
        {"margin": 0.0, "alpha": None},
        {"margin": math.inf, "alpha": None},
        {"alpha": 512.0},
        {"temperature": 0.1},
    ],
    ids=str,
)
def test_every_argument_changes_the_loss(change):
    """Public code exists in which the margin argument does nothing."""
    assert not torch.allclose(step(simo()), step(simo(cell(**change))))


def test_the_draw_of_negatives_changes_the_loss():
    assert not torch.allclose(step(simo(), seed=1), step(simo(), seed=2))


def test_the_projector_has_batch_norm_after_both_layers():
    kinds = [type(layer) for layer in Encoder(NETWORK, channels=1).projector]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d]


@pytest.mark.parametrize(("size", "stride", "channels"), [(8, 1, 1), (28, 2, 1), (32, 2, 3)])
def test_conv5_gives_256_features(size, stride, channels):
    network = Network(backbone="conv5", stride=stride, projector=[16, 8])
    encoder = Encoder(network, channels)
    x = torch.rand(3, channels, size, size)
    assert encoder.backbone(x).shape == (3, 256)
    assert encoder(x).shape == (3, 8)
