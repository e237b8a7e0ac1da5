"""The training loop: schedule, seeds, determinism, and that it learns."""

import copy
import math
from typing import ClassVar

import pytest
import torch
from helpers import cells
from torch.utils._python_dispatch import TorchDispatchMode

from eqco.errors import InputError
from eqco.losses import SharedNegatives, eqco_margin
from eqco.study.methods import METHODS
from eqco.training.loop import pretrain
from eqco.training.step import Training, draw_seed, learning_rate

CPU = torch.device("cpu")


def run(study, data, index: int = 0, **kwargs):
    cell = list(cells(study).values())[index]
    method, history = pretrain(study, cell, data, device=CPU, **kwargs)
    return method.encoder, history


def test_the_learning_rate_warms_up_linearly_and_falls_as_a_cosine():
    steps, warmup, peak = 1000, 100.0, 0.5
    rates = [learning_rate(t, steps, warmup, peak) for t in range(steps)]
    assert rates[0] == pytest.approx(peak / 100)
    for t in (0, 30, 99, 100, 500, 999):
        cosine = 0.5 * (1 + math.cos(math.pi * t / steps))
        assert rates[t] == pytest.approx(peak * min(1, (t + 1) / warmup) * cosine)
    assert max(rates) < peak
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert learning_rate(0, steps, 0, peak) == peak


def test_every_draw_has_its_own_seed():
    streams = ("weights", "order", "views", "negatives")
    seeds = {
        draw_seed(seed, stream, index)
        for seed in range(20)
        for stream in streams
        for index in range(50)
    }
    assert len(seeds) == 20 * 4 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_loss_falls(study_with, digits):
    study = study_with({"pretrain.epochs": 6, "pretrain.lr": 0.05, "pretrain.ema": 0.9})
    for index in (2, 6):  # EqCo at K = 1 and at K = 16
        _, history = run(study, digits, index)
        assert history[-1]["loss"] < 0.9 * history[0]["loss"]


def test_the_history_tells_each_epoch(study_with, digits):
    seen = []
    _, history = run(study_with({"pretrain.epochs": 2}), digits, report=seen.append)
    assert seen == history
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert all(entry["images"] == 5 * 256 for entry in history)  # 1,297 // 256 batches
    assert all(entry["images_per_s"] > 0 for entry in history)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tiny, digits):
    first, again, other = (run(tiny, digits, index)[0] for index in (0, 0, 1))
    torch.manual_seed(99)  # what other code does with the global state is nothing to it
    later = run(tiny, digits, 0)[0]
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        assert torch.equal(tensor, later.state_dict()[name])
    assert any(
        not torch.equal(tensor, other.state_dict()[name])
        for name, tensor in first.state_dict().items()
    )


def plain_losses(training: Training, steps: int) -> list[float]:
    """The same steps with contiguous images, whole similarity tensors and torch's cross-entropy."""
    cell, method = training.cell, copy.deepcopy(training.method)
    method.to(memory_format=torch.contiguous_format)
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, momentum=0.9, weight_decay=1e-4)
    margin = eqco_margin(cell.negatives, cell.alpha, cell.temperature)
    found = []
    for step in range(steps):
        draw = torch.Generator().manual_seed(draw_seed(cell.seed, "negatives", step))
        positive, s = method(*(view.contiguous() for view in training.views(step)), draw)
        s = s.dense() if isinstance(s, SharedNegatives) else s
        logits = torch.cat([positive[:, None] - margin, s], dim=1) / cell.temperature
        loss = torch.nn.functional.cross_entropy(logits, torch.zeros(len(s), dtype=torch.long))
        optimizer.param_groups[0]["lr"] = training.lr(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("method", ["simclr", "moco", "simo"])
def test_the_fast_step_is_the_plain_one(method, study_with, digits, monkeypatch):
    changes = {"methods": [method], "negatives": [100], "margins": ["eqco"], "seeds": [0]}
    study = study_with({"pretrain.queue": 512, "grid": [changes]})
    (cell,) = cells(study).values()
    training = Training(study, cell, digits, CPU)
    assert plain_losses(training, 1) == pytest.approx([training.advance().item()], abs=1e-5)
    # in float32 a ReLU's input near 0 may fall to the other side: further steps in float64
    training = Training(study, cell, digits, CPU)
    training.method.double()
    views = training.views
    monkeypatch.setattr(training, "views", lambda step: [view.double() for view in views(step)])
    expected = plain_losses(training, 4)
    assert expected == pytest.approx([training.advance().item() for _ in range(4)], abs=1e-9)


@pytest.mark.parametrize(
    ("method", "loss"),
    [*((method, "info-nce") for method in METHODS), ("moco", "macl"), ("simco", "sogclr")],
)
def test_a_step_never_waits_for_a_number(method, loss, study_with, digits):
    """No operation of a step needs a value on the host, for which a GPU's queue would run dry."""

    class Waits(TorchDispatchMode):
        found: ClassVar[list[str]] = []

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.overloadpacket in (
                *(torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero),
                *(torch.ops.aten.is_nonzero, torch.ops.aten.masked_select),
            ):
                self.found.append(str(function))
            return function(*args, **(kwargs or {}))

    everything = {
        "jitter": {"p": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
        "crop": [0.2, 1.0],
        "flip": 0.5,
        "grayscale": 0.2,
        "blur": {"p": 0.5, "kernel": 3},
        "erase": 0.5,
    }
    grid = {"methods": [method], "negatives": [100], "margins": [0], "seeds": [0]}
    grid |= {"losses": [loss]} if loss != "info-nce" else {"margins": ["eqco"]}
    more = {"pretrain.queue": 512, "pretrain.online": 0.3}
    study = study_with({"augment": everything, **more, "grid": [grid]})
    (cell,) = cells(study).values()
    training = Training(study, cell, digits, CPU)
    with Waits() as waits:
        for _ in range(training.steps_per_epoch):
            training.advance()
    assert waits.found == []


def test_bfloat16_is_of_the_passes_alone(study_with, digits):
    changes = {"pretrain.epochs": 3, "pretrain.lr": 0.05, "pretrain.ema": 0.9}
    trained, histories = [], []
    for precision in ("float32", "bfloat16"):
        study = study_with({**changes, "pretrain.precision": precision})
        encoder, history = run(study, digits, 6)
        trained.append(encoder)
        histories.append(history)
        assert {tensor.dtype for tensor in encoder.parameters()} == {torch.float32}
        again, _ = run(study, digits, 6)
        assert all(map(torch.equal, again.state_dict().values(), encoder.state_dict().values()))
    exact, low = histories
    assert low[0]["loss"] != exact[0]["loss"]
    for one, other in zip(low, exact, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.03)


def test_a_gradient_times_c_is_a_rate_times_c_with_the_decay_over_c(
    study_with, tiny_values, digits
):
    """One step of SGD: Δw = −lr (c g + decay w), be it by the loss, or by lr c and decay / c."""
    block = {**tiny_values["grid"][0], "negatives": [16], "margins": [0], "seeds": [0]}
    grid = [
        {**block, "lrs": [0.5], "weight_decays": [0.1]},
        {**block, "lrs": [1.5], "weight_decays": [0.1 / 3]},
    ]
    study = study_with({"grid": grid, "pretrain.weight_decay": 0.7})
    plain, scaled = (Training(study, cell, digits, CPU) for cell in cells(study).values())
    loss_of = plain.loss_of
    plain.loss_of = lambda s0, s: 3 * loss_of(s0, s)
    plain.advance()
    scaled.advance()
    for one, other in zip(plain.encoder.parameters(), scaled.encoder.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_a_step_in_bfloat16(study_with, digits, method):
    losses = []
    for precision in ("float32", "bfloat16"):
        study = study_with(
            {
                "pretrain.precision": precision,
                "pretrain.queue": 512,
                "network.projector_norm": "all",
                "grid.0.methods": [method],
            }
        )
        training = Training(study, next(iter(cells(study).values())), digits, CPU)
        losses.append(float(training.advance()))
    exact, low = losses
    assert low != exact
    assert low == pytest.approx(exact, rel=0.03)


def test_the_global_random_state_is_left_alone(tiny, digits):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(tiny, digits)
    assert torch.equal(torch.rand(3), expected)


def test_a_loss_that_is_not_finite_stops(study_with, digits):
    with pytest.raises(
        InputError, match=r"the loss is not finite from step \d+ of 15 on: pretrain.lr: 1e\+3"
    ):
        run(study_with({"pretrain.lr": 1e30, "pretrain.epochs": 3}), digits)


def test_a_batch_larger_than_the_data_stops(study_with, digits):
    """An image folder's size is not in the study file, so training asks the data."""
    folder = {"kind": "image-folder", "name": "x", "path": "x", "size": 8}
    study = study_with({"data": folder, "pretrain.batch": 1298})
    with pytest.raises(
        InputError, match=r"pretrain.batch: 1298: .*digits has 1297 training images"
    ):
        run(study, digits)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_it_trains_on_a_gpu(study_with, digits):
    study = study_with({"pretrain.epochs": 6, "pretrain.lr": 0.05, "pretrain.ema": 0.9})
    cell = list(cells(study).values())[6]
    _, history = pretrain(study, cell, digits, device=torch.device("cuda"))
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]
