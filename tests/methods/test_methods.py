"""Every method against a plain re-statement of its step, anchor by anchor."""

import copy
import math
from itertools import product

import pytest
import torch
from helpers import cells, repeated
from torch import Tensor, nn
from torch.nn import functional as F

from eqco import methods
from eqco.losses import SharedNegatives
from eqco.losses.sampling import sample
from eqco.methods.base import Contrastive
from eqco.methods.queue import Queue
from eqco.networks.batch_norm import GroupedBatchNorm2d
from eqco.networks.encoder import Encoder
from eqco.study.cell import Cell
from eqco.study.methods import METHODS
from eqco.study.recipe import LossSettings, Network, Pretrain
from eqco.training.loop import pretrain
from eqco.training.objective import objective

NETWORK = Network(backbone="conv5", stride=1, projector=[16, 8])
N, K = 12, 5
LOSSES = [
    {"loss": "info-nce", "margin": 0.0},
    {"loss": "info-nce", "margin": "eqco", "alpha": 256.0},
    {"loss": "info-nce", "margin": math.inf},
    {"loss": "dclw", "margin": 0.0},
    {"loss": "dual-temperature", "margin": 0.0},
    {"loss": "info-nce-rescaled", "margin": 0.0},
    {"loss": "dcl-rescaled", "margin": 0.0},
    {"loss": "macl", "margin": 0.0},
    {"loss": "siglip", "margin": "eqco", "alpha": 256.0},
]


def cell(method: str, **changes) -> Cell:
    values = {
        "method": method,
        "negatives": K,
        "margin": 0.0,
        "alpha": None,
        "temperature": 0.2,
        "batch": N,
        "lr": 0.1,
        "seed": 0,
    }
    return Cell.model_validate({**values, **changes})


def recipe(method: str, **changes) -> Pretrain:
    queue = 9 if method in ("moco", "nnclr") else None
    values = {"epochs": 1, "batch": N, "lr": 0.1, "ema": 0.9, "queue": queue}
    return Pretrain.model_validate({**values, **changes})


def build(method: str, k: int = K, network: Network = NETWORK, **changes) -> Contrastive:
    torch.manual_seed(0)
    encoder = Encoder(network, channels=1)
    model = methods.build(cell(method, negatives=k), encoder, recipe(method, **changes))
    if hasattr(model, "key_encoder"):  # not the encoder's copy any more
        for parameter in model.key_encoder.parameters():
            parameter.data.mul_(0.7).add_(0.01)
    return model


def views(n: int = N) -> list[Tensor]:
    return list(torch.rand(2, n, 1, 8, 8, generator=torch.Generator().manual_seed(1)))


def similarities(model: Contrastive, *arguments) -> tuple[Tensor, Tensor]:
    """Of every anchor with its positive (A,) and its negatives (A, K), as tensors."""
    positive, negatives = model(*arguments)
    return positive, negatives.dense() if isinstance(negatives, SharedNegatives) else negatives


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def cosines(a: Tensor, others: list[Tensor]) -> list[float]:
    return [F.cosine_similarity(a, b, dim=0).item() for b in others]


def moved_key_encoder(model) -> nn.Module:
    key = copy.deepcopy(model.key_encoder)
    for a, b in zip(key.parameters(), model.encoder.parameters(), strict=True):
        a.data = 0.9 * a.data + 0.1 * b.data
    return key


def rows_of_others(q: Tensor, k: Tensor, generator: torch.Generator, shared: bool):
    """Each anchor with its positive and the drawn ones of a list without the positive."""
    columns = sample(N, N - 1, K, generator, shared=shared).tolist()
    for i in range(N):
        rest = [k[j] for j in range(N) if j != i]
        yield cosines(q[i], [k[i]]), cosines(q[i], [rest[c] for c in columns[i]])


def by_hand(model, method: str, generator: torch.Generator) -> list[tuple[list, list]]:
    x1, x2 = views()
    shared, symmetric = model.shared, model.recipe.symmetric
    model = copy.deepcopy(model)
    if method == "simclr":
        per_view = model.recipe.batch_norm_per_view
        each = [model.encoder(x1), model.encoder(x2)] if per_view else []
        z = torch.cat(each) if each else model.encoder(torch.cat([x1, x2]))
        columns = sample(2 * N, 2 * N - 2, K, generator, shared=shared).tolist()
        rows = []
        for i in range(2 * N):
            rest = [z[j] for j in range(2 * N) if j % N != i % N]
            drawn = [rest[c] for c in columns[i]]
            rows.append((cosines(z[i], [z[(i + N) % (2 * N)]]), cosines(z[i], drawn)))
        return rows
    if method == "simco":
        a, b = model.encoder(x1), model.encoder(x2)
        return [*rows_of_others(a, b, generator, shared), *rows_of_others(b, a, generator, shared)]
    if method == "dhel":
        a, b = model.encoder(x1), model.encoder(x2)
        pairs = [cosines(u, [v]) for u, v in zip(a, b, strict=True)]
        views_twice = [*rows_of_others(a, a, generator, shared)]
        views_twice += rows_of_others(b, b, generator, shared)
        return [(s0, s) for s0, (_, s) in zip(2 * pairs, views_twice, strict=True)]
    if method == "nnclr":
        z1, z2 = model.encoder(x1), model.encoder(x2)
        p1, p2 = model.predictor(z1), model.predictor(z2)
        near = []
        for z in (z1, z2):
            support = list(model.support.items)
            near.append([max(support, key=lambda s, row=row: cosines(row, [s])) for row in z])
        return [
            *rows_of_others(near[0], p2, generator, shared),
            *rows_of_others(near[1], p1, generator, shared),
        ]
    directions = [(x1, x2), (x2, x1)] if symmetric else [(x1, x2)]
    queries = [model.encoder(a) for a, _ in directions]
    key = moved_key_encoder(model)
    keys = [key(b) for _, b in directions]
    if method == "moco":
        columns = sample(N * len(queries), 9, K, generator, shared=shared).tolist()
        return [
            (cosines(q, [k]), cosines(q, [model.queue.items[c] for c in drawn]))
            for q, k, drawn in zip(torch.cat(queries), torch.cat(keys), columns, strict=True)
        ]
    rows = []
    for q, k in zip(queries, keys, strict=True):
        rows += rows_of_others(q, k, generator, shared)
    return rows


VARIANTS = [
    (method, {"sampling": sampling, "symmetric": symmetric})
    for method, sampling, symmetric in product(METHODS, ("shared", "independent"), (False, True))
    if METHODS[method].symmetric or not symmetric
] + [("simclr", {"sampling": "shared", "symmetric": False, "batch_norm_per_view": True})]


@pytest.mark.parametrize(("method", "changes"), VARIANTS, ids=str)
def test_the_similarities_of_every_anchor(method, changes):
    model = build(method, **changes)
    expected = by_hand(model, method, seeded())
    positive, negatives = similarities(model, *views(), seeded())
    both = changes["symmetric"] or method in ("simclr", "simco", "dhel", "nnclr")
    assert negatives.shape == ((2 if both else 1) * N, K)
    found = [(s0.tolist(), s.tolist()) for s0, s in zip(positive[:, None], negatives, strict=True)]
    for (s0, s), (e0, e) in zip(found, expected, strict=True):
        assert s0 == pytest.approx(e0, abs=2e-5)
        assert s == pytest.approx(e, abs=2e-5)


def test_batch_norm_sees_both_views_of_simclr_together_unless_it_is_told_not_to():
    """A brighter second view: its own statistics take that out, common ones do not."""
    view1, view2 = views()
    found = []
    for per_view in (False, True):
        model = build("simclr", batch_norm_per_view=per_view)
        dark, bright = (similarities(model, view1, a * view2, seeded()) for a in (1, 3))
        found.append(torch.dist(dark[0], bright[0]).item())
    assert found[1] < 0.2 * found[0]


@pytest.mark.parametrize("method", METHODS)
def test_where_the_gradient_flows(method):
    model = build(method)
    positive, negatives = similarities(model, *views(), seeded())
    (negatives.sum() - positive.sum()).backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in model.named_parameters() if p.grad is not None}
    assert not any(name.startswith("key_encoder") for name in trained)
    assert any(name.startswith("encoder") for name in trained)


def test_simco_and_simclr_pass_gradient_into_the_keys_and_the_momentum_methods_do_not():
    for method in METHODS:
        model = build(method)
        second = views()[1].requires_grad_()
        positive, _ = model(views()[0], second, seeded())
        positive[:N].sum().backward()  # the anchors of view 1
        reaches = second.grad is not None and bool(second.grad.any())
        assert reaches == (method in {"simclr", "simco", "dhel", "nnclr"}), method


@pytest.mark.parametrize("method", ["moco", "simo", "simmoco"])
def test_the_key_encoder_follows_by_moving_average_of_parameters_alone(method):
    model = build(method)
    expected = moved_key_encoder(model)
    statistics = [b.clone() for b in (*model.encoder.buffers(), *model.key_encoder.buffers())]
    model(*views(), seeded())
    for a, b in zip(model.key_encoder.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    # both are in train mode: each has updated its own batch-norm statistics
    now = (*model.encoder.buffers(), *model.key_encoder.buffers())
    assert not any(torch.equal(a, b) for a, b in zip(statistics, now, strict=True))


@pytest.mark.parametrize("length", [3, 5, 8, 13])
def test_a_queue_holds_the_last_embeddings(length):
    queue = Queue(length, dim=2)
    pushed = torch.arange(40.0).repeat(2, 1).T  # (40, 2)
    for batch in pushed.split(5):
        queue.push(batch)
    held = sorted(queue.items[:, 0].tolist())
    assert held == pushed[-length:, 0].tolist()
    assert int(queue.oldest) == int(queue.items[:, 0].argmin())


def test_moco_queues_the_keys_after_the_step():
    model = build("moco", queue=2 * N, symmetric=True)
    before = model.queue.items.clone()
    model(*views(), seeded())
    assert torch.equal(model.queue.items, before)
    model.after_step()
    assert torch.equal(model.queue.items, model.latest_keys)


def test_dhel_is_its_papers_loss_in_both_directions():
    """−(1/N) Σ_i log(exp(u_i·v_i/τ) / Σ_(j≠i) exp(u_i·u_j/τ)), and with u and v exchanged."""
    model = build("dhel", k=N - 1)
    u, v = (F.normalize(copy.deepcopy(model).encoder(view)) for view in views())
    pair = torch.exp((u * v).sum(1) / 0.2)
    energies = [torch.exp(z @ z.T / 0.2).fill_diagonal_(0).sum(1) for z in (u, v)]
    theirs = torch.stack([-torch.log(pair / energy).mean() for energy in energies]).mean()
    loss = objective(cell("dhel", negatives=N - 1, margin=math.inf), LossSettings())
    torch.testing.assert_close(loss(*model(*views(), seeded())).mean(), theirs)


def test_moco_without_a_length_has_a_queue_of_k():
    model = build("moco", k=7, queue=None)
    assert model.queue.items.shape == (7, 8)
    assert model(*views(), seeded())[1].shape == (N, 7)


# A loss knows no method, and a method no loss: all pairs differ in test_every_argument_….
TRAINED = [repeated(method, LOSSES[1]) for method in METHODS]
TRAINED += [("simo", changes) for changes in LOSSES[:7] if changes != LOSSES[1]]
MORE = [*LOSSES[7:], {"loss": "sogclr", "margin": 0.0}]
TRAINED += [pytest.param("simo", changes, marks=pytest.mark.slow) for changes in MORE]


@pytest.mark.parametrize(("method", "changes"), TRAINED, ids=str)
def test_every_loss_and_every_method_falls_on_digits(method, changes, study_with, digits):
    """Eight epochs of five steps: the mean of the last two is below that of the first."""
    block = {"methods": [method], "negatives": [16], "seeds": [0], "margins": [changes["margin"]]}
    if changes["loss"] != "info-nce":
        block["losses"] = [changes["loss"]]
    recipe = {"epochs": 8, "lr": 0.05, "ema": 0.9, "batch": 256, "queue": 64}
    study = study_with({"grid": [block], "pretrain": recipe, "network.projector": [32, 16]})
    (chosen,) = cells(study).values()
    _, history = pretrain(study, chosen, digits, device=torch.device("cpu"))
    losses = [epoch["loss"] for epoch in history]
    assert (losses[-1] + losses[-2]) / 2 < losses[0] - 0.02


@pytest.mark.parametrize("method", METHODS)
def test_every_argument_changes_the_loss(method):
    """Public code exists in which the margin argument does nothing."""

    def loss(changes: dict, settings: LossSettings | None = None) -> float:
        chosen = cell(method, **{"alpha": None, **changes})
        model = build(method, k=chosen.negatives)
        loss_of = objective(chosen, settings or LossSettings())
        return loss_of(*model(*views(), seeded())).mean().item()

    losses = [loss(changes) for changes in LOSSES]
    losses += [loss({"margin": 0.3}), loss({"temperature": 0.1}), loss({"negatives": K + 1})]
    losses += [loss({"margin": "eqco", "alpha": 512.0})]
    losses += [loss({"loss": "dual-temperature"}, LossSettings(inter=0.3))]
    losses += [loss({"loss": "dclw"}, LossSettings(sigma=0.3))]
    losses += [loss({"loss": "macl"}, LossSettings(slope=0.3))]
    losses += [loss({"loss": "macl"}, LossSettings(threshold=0.3))]
    losses += [loss({"loss": "siglip"}), loss({"loss": "siglip"}, LossSettings(bias=-5.0))]
    assert len({round(value, 6) for value in losses}) == len(losses)


# networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "kinds"),
    [
        ("all", [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d]),
        ("hidden", [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]),
        ("none", [nn.Linear, nn.ReLU, nn.Linear]),
    ],
)
def test_the_projectors_of_the_papers(norm, kinds):
    network = Network(backbone="conv5", projector=[16, 8], projector_norm=norm)
    layers = Encoder(network, channels=1).projector
    assert [type(layer) for layer in layers] == kinds
    for layer, after in zip(layers, [*list(layers)[1:], None], strict=True):
        if isinstance(layer, nn.Linear):
            assert (layer.bias is None) == isinstance(after, nn.BatchNorm1d)


@pytest.mark.parametrize(("size", "stride", "channels"), [(8, 1, 1), (28, 2, 1), (32, 2, 3)])
def test_conv5_gives_256_features(size, stride, channels):
    network = Network(backbone="conv5", stride=stride, projector=[16, 8])
    encoder = Encoder(network, channels)
    x = torch.rand(3, channels, size, size)
    assert encoder.backbone(x).shape == (3, 256)
    assert encoder(x).shape == (3, 8)


@pytest.mark.parametrize(
    ("name", "features", "stem", "size"),
    [
        ("resnet18", 512, "small", 32),
        ("resnet18", 512, "large", 64),
        ("resnet50", 2048, "large", 64),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_resnets(name, features, stem, size, channels):
    network = Network(backbone=name, stem=stem, projector=[8])
    encoder = Encoder(network, channels)
    x = torch.rand(2, channels, size, size)
    assert encoder.backbone(x).shape == (2, features)
    assert encoder(x).shape == (2, 8)


def test_grouped_batch_norm_is_batch_norm_of_every_group():
    torch.manual_seed(0)
    grouped, plain = GroupedBatchNorm2d(5, groups=4), nn.BatchNorm2d(5)
    x = torch.randn(12, 5, 3, 3)
    y = grouped(x)
    means = []
    for group in range(4):
        rows = [i for i in range(12) if i % 4 == group]
        fresh = nn.BatchNorm2d(5)
        torch.testing.assert_close(y[rows], fresh(x[rows]))
        means.append(fresh.running_mean)
    torch.testing.assert_close(grouped.running_mean, torch.stack(means).mean(0))
    plain.load_state_dict(grouped.state_dict())
    torch.testing.assert_close(grouped.eval()(x), plain.eval()(x))


def test_keys_are_shuffled_where_batch_norm_is_split():
    """A key is normalised with other images than its query, and comes back in its own place."""
    network = Network(backbone="conv5", stride=1, projector=[8], batch_norm_groups=3)
    model = build("moco", network=network)
    key_encoder, view = copy.deepcopy(model.key_encoder), views()[1]
    straight = F.normalize(key_encoder(view))
    order = torch.randperm(N, generator=seeded())
    shuffled = F.normalize(key_encoder(view[order]))
    expected = torch.empty_like(shuffled)
    for place, image in enumerate(order.tolist()):
        expected[image] = shuffled[place]
    found = model.keys(view, seeded())
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, straight, atol=1e-4)
