"""Pretraining: one readable loop from a packed dataset to an encoder."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from eqco.augment import Augmentation
from eqco.checkpoint import Checkpoints, State, Stop
from eqco.data import load, read_manifest
from eqco.diagnostics import NAMES, bound, measure
from eqco.errors import Diverged, InputError
from eqco.methods import METHODS
from eqco.networks import Encoder
from eqco.objectives import objective
from eqco.params import Cell, Study

STREAMS = ("weights", "order", "views", "negatives")


def draw_seed(
    seed: int, stream: Literal["weights", "order", "views", "negatives"], index: int
) -> int:
    """A seed in [0, 2⁶³) for one draw of one stream.

    Every random draw of a run is a function of the cell's seed, what it is for, and the step or
    epoch: no random state is carried from step to step.
    """
    sequence = np.random.SeedSequence([seed, STREAMS.index(stream), index])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def learning_rate(step: int, steps: int, warmup: float, peak: float) -> float:
    """Linear warm-up times half a cosine from step 0 on, as in EqCo's released code.

    Args:
        step: from 0 to steps − 1.
        steps: of the whole training.
        warmup: steps of the warm-up, may be a fraction.
        peak: the rate without both.
    """
    rise = min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0
    return peak * rise * 0.5 * (1 + math.cos(math.pi * step / steps))


def pretrain(
    study: Study,
    cell: Cell,
    data: Path,
    *,
    device: torch.device,
    report: Callable[[dict[str, Any]], None] = lambda epoch: None,
    checkpoints: Checkpoints | None = None,
    seconds_between_checkpoints: float = 300,
    stop: Stop | None = None,
) -> tuple[Encoder, list[dict[str, Any]]]:
    """Train one cell.

    Args:
        study: the recipe.
        cell: the method and its K, margin, α, τ and seed.
        data: folder of the packed dataset.
        device: where to train.
        report: called after each epoch with its entry of the history.
        checkpoints: to go on from and to write to; on CPU a run that goes on ends in the same bytes
            as one that was never stopped.
        seconds_between_checkpoints: at least.
        stop: checked after each step; when it is set, the state is saved and the training ends.

    Returns:
        The encoder, and for each epoch ``epoch``, ``loss`` (mean over its steps, nats), what
        ``diagnostics.measure`` gives of its last step, ``bound`` (``diagnostics.bound``), ``lr``
        at its end, ``images`` and ``images_per_s``.

    Raises:
        InputError: when the batch is larger than the data, or the checkpoint is of another run.
        Diverged: when the loss stops being finite. Such a state is never saved.
        Interrupted: when ``stop`` was set and the state is saved.
    """
    recipe = study.pretrain
    manifest = read_manifest(data)
    images = load(data, "train", study.data.train_size)["images"].to(device)  # (M, C, H, W) uint8
    if cell.batch > len(images):
        raise InputError(f"pretrain.batch: {cell.batch}: {data} has {len(images)} training images")
    mean, std = (torch.tensor(manifest[name], device=device) for name in ("mean", "std"))
    augment = Augmentation(study.augment, mean, std)
    with torch.random.fork_rng():
        torch.manual_seed(draw_seed(cell.seed, "weights", 0))
        encoder = Encoder(study.network, channels=images.shape[1])
        model = METHODS[cell.method].build(encoder, cell, recipe).to(device).train()
    loss_of = objective(cell, study.loss)
    optimizer = torch.optim.SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=cell.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    steps_per_epoch = len(images) // cell.batch  # the last, smaller batch is dropped
    steps = recipe.epochs * steps_per_epoch

    step = 0  # steps done
    history: list[dict[str, Any]] = []
    total = torch.zeros((), device=device)  # of the epoch's losses
    finite = torch.zeros((), dtype=torch.long, device=device)  # the epoch's steps until total isn't
    seconds = 0.0  # of the epoch, before this process
    state = checkpoints.load() if checkpoints else None
    if state is not None:
        step, history, seconds = state.step, state.values["history"], state.values["seconds"]
        _restore(state.tensors, model, optimizer)
        total, finite = (state.tensors[name].to(device) for name in ("total", "finite"))
    start = saved = time.perf_counter()
    order: tuple[int, Tensor] | None = None  # the epoch and its (M,) permutation

    def check_finite() -> None:
        if not math.isfinite(float(total)):
            first = step - (step - 1) % steps_per_epoch + int(finite)
            raise Diverged(
                f"the loss is not finite from step {first} of {steps} on: "
                f"pretrain.lr: {cell.lr}: a lower rate may train",
                history,
            )

    def save() -> None:
        assert checkpoints
        check_finite()
        values = {"history": history, "seconds": seconds + time.perf_counter() - start}
        tensors = {"total": total, "finite": finite, **_tensors(model, optimizer)}
        checkpoints.save(State(step, tensors, values))

    while step < steps:
        epoch, i = divmod(step, steps_per_epoch)
        if order is None or order[0] != epoch:
            generator = torch.Generator().manual_seed(draw_seed(cell.seed, "order", epoch))
            order = epoch, torch.randperm(len(images), generator=generator).to(device)
        lr = learning_rate(step, steps, recipe.warmup_epochs * steps_per_epoch, cell.lr)
        optimizer.param_groups[0]["lr"] = lr
        visit = order[1][i * cell.batch : (i + 1) * cell.batch]  # (N,)
        batch = images[visit]  # (N, C, H, W) uint8
        views = augment(batch.repeat(2, 1, 1, 1), draw_seed(cell.seed, "views", step))
        draw = torch.Generator(device).manual_seed(draw_seed(cell.seed, "negatives", step))
        positive, negatives = model(*views.chunk(2), draw)  # (A,), (A, K)
        loss = loss_of(positive, negatives).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step()
        total += loss.detach()
        finite += total.isfinite()
        step += 1
        if i + 1 == steps_per_epoch:
            check_finite()
            mean_loss = float(total) / steps_per_epoch
            gradients = torch.cat([q.grad for q in model.latest_queries if q.grad is not None])
            measured = measure(positive, negatives, gradients, cell).tolist()
            rate = steps_per_epoch * cell.batch / (seconds + time.perf_counter() - start)
            history.append(
                {
                    "epoch": epoch + 1,
                    "loss": mean_loss,
                    **dict(zip(NAMES, measured, strict=True)),
                    "bound": bound(cell, mean_loss),
                    "lr": lr,
                    "images": steps_per_epoch * cell.batch,
                    "images_per_s": rate,
                }
            )
            report(history[-1])
            start, seconds = time.perf_counter(), 0.0
            total.zero_()
            finite.zero_()
        if checkpoints and step < steps:
            if stop:
                save()
                raise stop.now(step, steps)
            if time.perf_counter() - saved > seconds_between_checkpoints:
                save()
                saved = time.perf_counter()
    return encoder, history


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything that the next step depends on, by name."""
    named = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            if value is not None:
                named[f"optimizer.{index}.{slot}"] = value
    return named


def _restore(
    tensors: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Put back what ``_tensors`` gave."""
    states: dict[int, dict[str, Tensor]] = {}
    weights = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "model":
            weights[rest] = tensor
        elif kind == "optimizer":
            index, _, slot = rest.partition(".")
            states.setdefault(int(index), {})[slot] = tensor
    model.load_state_dict(weights)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
