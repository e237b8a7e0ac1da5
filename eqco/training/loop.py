"""Pretraining: one readable loop from a packed dataset to an encoder."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from eqco.errors import Diverged
from eqco.methods.base import Contrastive
from eqco.runtime.ranks import average_statistics, from_first, largest, rank, ranks
from eqco.store.checkpoint import Checkpoints, State, Stop
from eqco.study.study import Cell, Study
from eqco.training.diagnostics import NAMES, bound
from eqco.training.step import Training


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
) -> tuple[Contrastive, list[dict[str, Any]]]:
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
        The method with its trained encoders, and for each epoch ``epoch``, ``loss`` (mean over its
        steps, nats), what ``diagnostics.measure`` gives of its last step, ``bound``
        (``diagnostics.bound``), ``lr`` at its end, ``images`` and ``images_per_s``.

    Raises:
        InputError: when the batch is larger than the data, or the checkpoint is of another run.
        Diverged: when the loss stops being finite. Such a state is never saved.
        Interrupted: when ``stop`` was set and the state is saved.
    """
    training = Training(study, cell, data, device)
    first = rank() == 0  # reads and writes for all ranks
    history: list[dict[str, Any]] = []
    total = torch.zeros((), device=device)  # of the epoch's losses
    finite = torch.zeros((), dtype=torch.long, device=device)  # the epoch's steps until total isn't
    seconds = 0.0  # of the epoch, before this process
    state = from_first(checkpoints.load() if checkpoints and first else None)
    if state is not None:
        history, seconds = state.values["history"], state.values["seconds"]
        before = state.values.get("ranks", 1)
        if first and before != ranks():
            print(
                f"goes on with {ranks()} ranks after step {state.step}, which {before} made: "
                f"the batch stays {cell.batch}, {cell.batch // ranks()} a rank",
                flush=True,
            )
        total, finite = (state.tensors[name].to(device) for name in ("total", "finite"))
        training.restore(state.step, state.tensors)
    start = saved = time.perf_counter()

    def check_finite() -> None:
        if not math.isfinite(float(total)):
            epoch_start = (training.step - 1) // training.steps_per_epoch * training.steps_per_epoch
            raise Diverged(
                f"the loss is not finite from step {epoch_start + 1 + int(finite)} of "
                f"{training.steps} on: pretrain.lr: {cell.lr}: a lower rate may train",
                history,
            )

    def save() -> None:
        assert checkpoints
        check_finite()
        average_statistics(training.method)
        if first:
            spent = seconds + time.perf_counter() - start
            values = {"history": history, "seconds": spent, "ranks": ranks()}
            tensors = {"total": total, "finite": finite, **training.tensors()}
            checkpoints.save(State(training.step, tensors, values))

    while training.step < training.steps:
        total += training.advance()
        finite += total.isfinite()
        epoch, remaining = divmod(training.step, training.steps_per_epoch)
        if remaining == 0:
            check_finite()
            mean_loss = float(total) / training.steps_per_epoch
            images = training.steps_per_epoch * cell.batch
            diagnosis = (None if math.isnan(x) else x for x in training.diagnosis.tolist())
            history.append(
                {
                    "epoch": epoch,
                    "loss": mean_loss,
                    **dict(zip(NAMES, diagnosis, strict=True)),
                    "bound": bound(cell, mean_loss),
                    "lr": training.lr(training.step - 1),
                    "images": images,
                    "images_per_s": images / (seconds + time.perf_counter() - start),
                }
            )
            if first:
                report(history[-1])
            start, seconds = time.perf_counter(), 0.0
            total.zero_()
            finite.zero_()
        if checkpoints and training.step < training.steps:
            late = int(time.perf_counter() - saved > seconds_between_checkpoints)
            asked, late = largest(stop.asked_by or 0 if stop else 0, late)
            if asked or late:
                save()
                saved = time.perf_counter()
            if asked:
                raise Stop(asked).now(training.step, training.steps)
    average_statistics(training.method)
    return training.method, history
