"""SogCLR in a training: what it remembers of which image, and that it is saved and resumed."""

import math

import pytest
import torch
from helpers import cells

from eqco.store.checkpoint import Checkpoints, State
from eqco.training.step import Training

CPU = torch.device("cpu")


@pytest.fixture
def training(study_with, digits):
    """Make a training of SogCLR by a method: ``training("simco", **{"pretrain.batch": 64})``."""

    def make(method: str, **changes) -> Training:
        block = {"methods": [method], "negatives": [6], "margins": [0], "losses": ["sogclr"]}
        changes = {"grid": [{**block, "seeds": [0]}], "pretrain.epochs": 2, **changes}
        study = study_with({**changes, "pretrain.queue": 16, "loss": {"gamma": 0.5}})
        (cell,) = cells(study).values()
        return Training(study, cell, digits, CPU)

    return make


@pytest.mark.parametrize("method", ["simo", "simclr", "nnclr"])
def test_it_remembers_the_images_of_the_batches_and_no_other(training, method):
    some = training(method, **{"data.validation": 600, "pretrain.batch": 64})
    log_u, seen = some.loss_of.log_u, set()
    for step in range(3):
        before = log_u.clone()
        seen |= set(some.views.visit(step).tolist())
        some.advance()
        changed = (log_u != before).nonzero().flatten().tolist()
        assert sorted(changed) == sorted(some.views.visit(step).tolist())
    assert set((log_u > -math.inf).nonzero().flatten().tolist()) == seen
    assert len(seen) == 3 * 64
    assert log_u.shape == (1297,)


def test_an_anchor_changes_its_own_image(training):
    """Of the two views of SimCo: image i's is the mean over anchors i and N + i."""
    some = training("simco", **{"pretrain.batch": 16})
    generator = torch.Generator().manual_seed(0)
    positive, negatives = some.method(*some.views(0), generator)
    some._losses(positive, negatives)
    mean = torch.exp(negatives.detach() / 0.2).mean(1)  # (2N,)
    for i, image in enumerate(some.views.visit(0).tolist()):
        expected = math.log((mean[i] + mean[16 + i]) / 2)
        assert some.loss_of.log_u[image].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_continues_after_a_step_in_the_same_bytes(training, tmp_path, precision):
    changes = {"pretrain.precision": precision, "pretrain.batch": 512}
    checkpoints, whole = Checkpoints(tmp_path, {}), training("simco", **changes)
    for _ in range(whole.steps):  # the images are visited twice
        checkpoints.save(State(whole.step, whole.tensors(), {}))
        saved = checkpoints.load()
        resumed = training("simco", **changes)
        resumed.restore(saved.step, saved.tensors)
        whole.advance()
        resumed.advance()
        for name, tensor in whole.tensors().items():
            assert torch.equal(tensor, resumed.tensors()[name]), name
    assert whole.tensors()["model.memory.log_u"].isfinite().sum() >= 1024
    # without what is remembered the next step is another
    resumed = training("simco", **changes)
    resumed.restore(saved.step, saved.tensors | {"model.memory.log_u": torch.zeros(1297)})
    resumed.advance()
    assert not all(torch.equal(t, resumed.tensors()[name]) for name, t in whole.tensors().items())
