"""Training on a GPU: methods by precisions, its losses, no wait in a step, resumed to the byte."""

import os
import signal

import pytest
import torch
from helpers import cells

from eqco.errors import Interrupted
from eqco.runtime.signals import Stop
from eqco.store.checkpoint import Checkpoints
from eqco.study.methods import METHODS
from eqco.training.loop import pretrain
from eqco.training.step import Training

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
RECIPES = [*METHODS, "moco, symmetric", "moco, split batch norm"]
PRECISIONS = ["float32", "bfloat16"]
FURTHER = {  # a method, and what its recipe has in place of the others'
    "simclr, batch norm per view": {"pretrain.batch_norm_per_view": True},
    "simclr, online classifier": {"pretrain.online": 0.3},
    **{
        f"simo, {name}": {"pretrain.optimizer": name}
        for name in ("normalised-sgd", "lars", "adamw")
    },
    **{
        f"simo, {name}": {"grid.0.losses": [name]}
        for name in ("macl", "siglip", "sogclr", "dcl-rolled", "info-nce-rescaled")
    },
}


@pytest.fixture
def parts(study_with):
    """Make a study of one cell of a recipe, and the cell: ``parts("moco", epochs=2)``."""

    def make(recipe: str, *, k: int | str = 4, precision: str = "float32", epochs: int = 2):
        method, _, variant = recipe.partition(", ")
        negatives = k if k == "all" else [k]
        study = study_with(
            {
                "grid": [
                    {"methods": [method], "negatives": negatives, "margins": [0], "seeds": [0]}
                ],
                "augment": {
                    **{"crop": [0.5, 1.0], "flip": 0.5, "grayscale": 0.2, "erase": 0.2},
                    "jitter": {"p": 0.8, "brightness": 0.4, "contrast": 0.4},
                    "blur": {"p": 0.5, "kernel": 3},
                },
                "network.batch_norm_groups": 4 if variant == "split batch norm" else 1,
                "pretrain.epochs": epochs,
                "pretrain.lr": 0.05,
                "pretrain.ema": 0.9,
                "pretrain.precision": precision,
                "pretrain.queue": 256 if method in ("moco", "nnclr") else None,
                "pretrain.symmetric": variant == "symmetric",
                "pretrain.sampling": "independent" if isinstance(k, int) else "shared",
                **FURTHER.get(recipe, {}),
            }
        )
        return study, next(iter(cells(study).values()))

    return make


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_loss_falls(parts, digits, recipe, precision):
    study, cell = parts(recipe, k=16, precision=precision, epochs=6)
    _, history = pretrain(study, cell, digits, device=CUDA)
    assert history[-1]["loss"] < 0.95 * history[0]["loss"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_first_loss_is_that_of_the_cpu(parts, digits, recipe, monkeypatch):
    """All negatives, since a draw of some depends on the device's generator."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    study, cell = parts(recipe, k=256 if recipe.startswith("moco") else "all")
    losses = []
    views = Training(study, cell, digits, CPU).views(0)
    for device in (CPU, CUDA):
        training = Training(study, cell, digits, device)
        draw = torch.Generator(device).manual_seed(0)
        similarities = training.model(*(view.to(device) for view in views), draw)
        losses.append(training.loss_of(*similarities).mean().item())
    if recipe == "moco, split batch norm":  # its shuffle is a draw
        assert losses[1] == pytest.approx(losses[0], rel=0.05)
    else:
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("recipe", [*RECIPES, *FURTHER])
def test_a_step_does_not_wait_for_the_device(parts, digits, recipe, precision):
    training = Training(*parts(recipe, precision=precision), digits, CUDA)
    training.advance()  # the order of an epoch is copied to the device once
    torch.cuda.set_sync_debug_mode("error")
    try:
        training.advance()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("recipe", [*RECIPES, *FURTHER])
def test_stopped_after_every_step_it_ends_in_the_same_bytes(
    parts, digits, recipe, precision, tmp_path
):
    """With torch's deterministic algorithms, since a GPU's fastest add in any order.

    It only warns of the adaptive pool's, which does so if its windows overlap: not in this network.
    """
    study, cell = parts(recipe, precision=precision)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        whole, history = pretrain(study, cell, digits, device=CUDA)
        stops, checkpoints = 0, Checkpoints(tmp_path, {"config_hash": "-", "dataset": "-"})
        while True:
            stop = Stop(signal.SIGTERM)  # asks after each step
            try:
                stopped, told = pretrain(
                    study, cell, digits, device=CUDA, checkpoints=checkpoints, stop=stop
                )
                break
            except Interrupted:
                stops += 1
    finally:
        torch.use_deterministic_algorithms(False)
    assert stops == 2 * 5 - 1  # 1,297 images, batches of 256
    assert [epoch["loss"] for epoch in told] == [epoch["loss"] for epoch in history]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, stopped.state_dict()[name]), name
