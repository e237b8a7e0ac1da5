"""Training steps on a GPU that need not be there: torch's fake tensors, of the device cuda.

A fake tensor has a shape and a device, and no numbers. So an operation that mixes devices fails,
and one that needs a number, for which the host would wait. That a real GPU computes the same is in
test_training_on_a_gpu.py.
"""

from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
import torch
from helpers import cells
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eqco.losses import SogCLR
from eqco.study.fields import Loss
from eqco.study.methods import METHODS
from eqco.training import optimizers
from eqco.training.objective import objective
from eqco.training.step import Training

CUDA = torch.device("cuda")
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
AUGMENT = {
    **{"crop": [0.5, 1.0], "flip": 0.5, "grayscale": 0.2, "erase": 0.2},
    "jitter": {"p": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "blur": {"p": 0.5, "kernel": 3},
}
RECIPES: dict[str, dict[str, Any]] = {
    **{method: {} for method in METHODS},
    "moco, all": {"grid.0.negatives": [256]},
    "moco, symmetric": {"pretrain.symmetric": True},
    "moco, split batch norm": {"network.batch_norm_groups": 4},
    "simo, independent": {"pretrain.sampling": "independent"},
    "simo, sogclr": {"grid.0.losses": ["sogclr"]},
    "simclr, batch norm per view": {"pretrain.batch_norm_per_view": True},
    "simclr, online classifier": {"pretrain.online": 0.3},
    **{
        f"simo, {name}": {"pretrain.optimizer": name}
        for name in ("normalised-sgd", "lars", "adamw")
    },
}


class Wait(AssertionError):
    """A copy for which the host waits, or an operation on tensors of both."""


class NoWaits(TorchDispatchMode):
    """Refuse the copies between host and device that wait, which fake tensors allow."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        sources = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if func in COPIES:
            source = sources[-1].device.type  # copy_ names the target first
            waits = made.device.type == "cpu" or not (
                kwargs.get("non_blocking") if func is COPIES[0] else args[2:] == (True,)
            )
            if source != made.device.type and waits:
                raise Wait(f"{func}: from {source} to {made.device.type}")
        elif len({x.device.type for x in sources if x.dim()}) > 1:
            raise Wait(f"{func}: of tensors of several devices")
        return made


class Generator(torch.Generator):
    """A generator that says that it is on a device: fake tensors draw nothing from it."""

    device = property(lambda self: self.named)

    def __new__(cls, device: torch.device | str = "cpu") -> "Generator":
        made = super().__new__(cls)
        made.named = torch.device(device)
        return made


@pytest.fixture
def gpu(monkeypatch) -> Iterator[FakeTensorMode]:
    """Fake tensors in place of all that are made."""
    monkeypatch.setattr(torch, "Generator", Generator)
    with FakeTensorMode() as mode:
        yield mode


def move(training: Training, mode: FakeTensorMode) -> None:
    """Move a training and its data to the fake GPU, as ``to`` moves them to a real one.

    A tensor that ``to`` would not move stays real, and an operation on it fails.
    """

    def there(x: Tensor) -> Tensor:
        return mode.from_tensor(x).to(CUDA)

    for module in training.method.modules():
        for name, x in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(there(x), x.requires_grad))
        for name, x in module.named_buffers(recurse=False):
            setattr(module, name, there(x))
    views = training.views
    training.device = views.device = CUDA
    views.images, views.labels = there(views.images), mode.from_tensor(views.labels)
    views.rows = mode.from_tensor(views.rows)
    views.augment.mean, views.augment.std = there(views.augment.mean), there(views.augment.std)
    training.optimizer = optimizers.build(training.recipe, training.method, lr=training.cell.lr)
    if training.online:
        training.labels = there(views.labels)


@pytest.fixture
def training(gpu, study_with, digits, monkeypatch) -> Callable[[str], Training]:
    """The training of a recipe, of which a step has been done: ``training("moco")``.

    A backward pass needs a real GPU: torch starts a thread for it. So gradients only get shapes.
    """

    def make(recipe: str) -> Training:
        method = recipe.partition(", ")[0]
        block = {"methods": [method], "negatives": [4], "margins": [0], "seeds": [0]}
        changes = {
            "grid": [block],
            "augment": AUGMENT,
            "pretrain.batch": 512,  # of 1,297 images: two steps an epoch
            "pretrain.ema": 0.9,
            "pretrain.queue": 256 if method in ("moco", "nnclr") else None,
        }
        study = study_with({**changes, **RECIPES[recipe]})
        with unset_fake_temporarily():
            made = Training(study, next(iter(cells(study).values())), digits, torch.device("cpu"))
        move(made, gpu)

        def backward(loss: Tensor) -> None:
            assert loss.shape == ()
            assert loss.requires_grad
            trained = [x for x in made.method.parameters() if x.requires_grad]
            for x in (*trained, *made.method.latest_queries):
                x.grad = torch.empty_like(x)

        monkeypatch.setattr(Tensor, "backward", backward)
        made.advance()  # the order of an epoch is copied to the device once
        return made

    return make


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_is_on_the_gpu_and_does_not_wait_for_it(training, recipe):
    one = training(recipe)
    with NoWaits():
        loss = one.advance()
    assert one.step == one.steps_per_epoch  # so there is a diagnosis
    state = [x for x in one.tensors().values() if x.dim()]  # AdamW counts steps on the host
    assert {x.device.type for x in (loss, one.diagnosis, *state)} == {"cuda"}


@pytest.mark.parametrize("method", [*METHODS, "moco, all"])
def test_every_loss_is_on_the_gpu_and_does_not_wait_for_it(training, method):
    one = training(method)
    similarities = one.model(*one.views(1), Generator(CUDA).manual_seed(0))
    settings = one.settings.model_copy(update={"scalar_negatives": 2})
    for loss in get_args(Loss):
        cell = one.cell.model_copy(update={"loss": loss, "alpha": 256.0, "margin": "eqco"})
        one.loss_of = objective(cell, settings, images=len(one.views.labels))
        if isinstance(one.loss_of, SogCLR):
            one.loss_of.to(CUDA)
        with NoWaits():
            found = one._losses(*similarities)
        assert found.device.type == "cuda", loss
        assert found.shape == similarities[0].shape, loss


FAULTS = {
    "a number": (lambda z: z / z.detach().norm().item(), DataDependentOutputException),
    "a decision": (lambda z: z if z.isfinite().all() else 0 * z, DataDependentOutputException),
    "a choice of rows": (lambda z: z[z.detach().sum(1) > 0], DynamicOutputShapeException),
    "a tensor on the host": (lambda z: z + torch.ones(z.shape), RuntimeError),
    "rows by the host": (lambda z: z[torch.arange(len(z))], Wait),
    "a copy to the host": (lambda z: z + 0 * z.cpu().sum(), Wait),
    "a copy from the host": (lambda z: z + torch.ones(len(z), 1).to(z.device), Wait),
    "a copy into a tensor": (lambda z: z + torch.empty_like(z[0]).copy_(torch.ones(8)), Wait),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_method_with_a_fault_does_not_pass(training, fault):
    one = training("simo")
    faulty, error = FAULTS[fault]
    embed = one.method.embed
    one.method.embed = lambda view: faulty(embed(view))
    with NoWaits(), pytest.raises(error):
        one.advance()


def test_what_a_method_may_do_passes(training):
    """A number of the host's, a tensor made on the device, and a copy that does not wait."""
    one = training("simo")
    embed = one.method.embed

    def with_more(view: Tensor) -> Tensor:
        z = embed(view)
        row = torch.arange(len(z), device=z.device)
        return z[row] * torch.tensor(2.0) + torch.ones(8).to(z.device, non_blocking=True)

    one.method.embed = with_more
    with NoWaits():
        one.advance()
