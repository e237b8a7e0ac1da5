"""The classifier beside the encoder: its steps by autograd; the encoder does not feel it."""

import pytest
import torch
from helpers import cells
from torch import nn
from torch.nn import functional as F

from eqco.commands.evaluate import evaluate_linear
from eqco.commands.pretrain import pretrain_cell
from eqco.errors import InputError
from eqco.evaluation.features import extract
from eqco.store.cells import ENCODER, read_encoder, read_json
from eqco.store.checkpoint import Checkpoints, State
from eqco.study.grid import Grid
from eqco.study.methods import METHODS
from eqco.training.step import Training

CPU = torch.device("cpu")
RATE = 0.3


@pytest.fixture
def study_of(study_with):
    """Make a study of one cell: ``study_of("simo", **{"pretrain.epochs": 2})``."""

    def make(method: str, **changes):
        block = {"methods": [method], "negatives": [6], "margins": [0], "seeds": [0]}
        return study_with(
            {"grid": [block], "pretrain.queue": 512, "pretrain.online": RATE, **changes}
        )

    return make


def training_of(study, data) -> Training:
    (cell,) = cells(study).values()
    return Training(study, cell, data, CPU)


@pytest.mark.parametrize("method", METHODS)
def test_its_steps_are_those_of_autograd_and_torchs_sgd(method, study_of, digits):
    """On the features of every view that the encoder passes, with the schedule of its rate."""
    training = training_of(study_of(method, **{"pretrain.warmup_epochs": 1}), digits)
    layer = nn.Linear(256, 10)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.SGD(layer.parameters(), lr=RATE, momentum=0.9)
    seen: list[torch.Tensor] = []
    training.encoder.backbone.register_forward_hook(lambda module, images, x: seen.append(x))
    for step in range(4):
        seen.clear()
        labels = training.views.labels[training.views.visit(step)]
        training.advance()
        features = torch.cat(seen).detach()
        views = len(features) // len(labels)
        assert views == (1 if METHODS[method].momentum else 2)
        optimizer.param_groups[0]["lr"] = RATE * training.lr(step) / training.cell.lr
        optimizer.zero_grad()
        F.cross_entropy(layer(features), labels.repeat(views)).backward()
        optimizer.step()
    torch.testing.assert_close(training.online.weight[:, :-1], layer.weight.detach())
    torch.testing.assert_close(training.online.weight[:, -1], layer.bias.detach())


@pytest.mark.parametrize("method", METHODS)
def test_the_encoder_is_the_same_without_it(method, study_of, digits):
    beside, alone = (
        training_of(study_of(method, **{"pretrain.online": rate}), digits) for rate in (RATE, None)
    )
    for _ in range(3):
        assert torch.equal(beside.advance(), alone.advance())
    found = beside.tensors()
    for name, tensor in alone.tensors().items():
        assert torch.equal(tensor, found[name]), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_continues_after_a_step_in_the_same_bytes(study_of, digits, tmp_path, precision):
    study = study_of("simo", **{"pretrain.precision": precision, "pretrain.batch": 512})
    checkpoints, whole = Checkpoints(tmp_path, {}), training_of(study, digits)
    for _ in range(whole.steps):
        checkpoints.save(State(whole.step, whole.tensors(), {}))
        saved = checkpoints.load()
        resumed = training_of(study, digits)
        resumed.restore(saved.step, saved.tensors)
        whole.advance()
        resumed.advance()
        assert torch.equal(resumed.online.weight, whole.online.weight)
        assert torch.equal(resumed.online.velocity, whole.online.velocity)
    assert whole.online.weight.abs().min() > 0


def test_its_accuracy_is_a_protocol_of_the_cell(study_of, digits, tmp_path):
    """On the test images and on those to validate, by the frozen backbone and the last weights."""
    study = study_of("simclr", **{"data.validation": 200, "pretrain.epochs": 8})
    (cell,) = Grid(study).cells.values()
    pretrain_cell(
        study, cell, digits, tmp_path, tmp_path / "state", device=CPU, checkpoint_seconds=300
    )
    encoder = read_encoder(tmp_path / ENCODER)
    out = tmp_path / "linear.json"
    evaluate_linear(study, tmp_path / ENCODER, digits, out, tmp_path / "state", device=CPU)
    found = read_json(out)["accuracy"]
    features = extract(encoder, digits, device=CPU)
    for name, x, y in (
        ("linear-online", features.test, features.test_labels),
        ("linear-online@validation", features.validation, features.validation_labels),
    ):
        scores = x @ encoder.online[:, :-1].T + encoder.online[:, -1]
        assert found[name] == pytest.approx(100 * (scores.argmax(1) == y).double().mean().item())
    assert found["linear-online"] > 40  # of ten classes
    assert set(found) == {name for name in study.protocols if not name.startswith("knn")}


def test_all_cells_have_one_or_none(study_with):
    block = {"methods": ["simo"], "negatives": [6], "margins": [0], "seeds": [0]}
    with pytest.raises(InputError, match=r"pretrain.online.*all must, or none"):
        study_with({"grid": [{**block, "with": {"pretrain.online": [0.1, None]}}]})
