"""The training loop: from a packed dataset to a trained encoder, resumable to the byte."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from eqco.methods.base import Contrastive
from eqco.networks.batch_norm import average_statistics
from eqco.runtime.ranks import rank, ranks
from eqco.runtime.signals import Stop
from eqco.store import history as lines
from eqco.store.checkpoint import Checkpoints, State
from eqco.store.resume import Resumable, write_progress
from eqco.study.cell import Cell
from eqco.study.study import Study
from eqco.training.curve import knn_accuracy
from eqco.training.epoch import Epoch
from eqco.training.step import Training

History = list[dict[str, Any]]  # an entry for each epoch


def pretrain(
    study: Study,
    cell: Cell,
    data: Path,
    *,
    device: torch.device,
    report: Callable[[dict[str, Any]], None] = lambda epoch: None,
    progress: Path | None = None,
    checkpoints: Checkpoints | None = None,
    seconds_between_checkpoints: float = 300,
    stop: Stop | None = None,
) -> tuple[Contrastive, History]:
    """Train one cell.

    Args:
        study: the recipe.
        cell: the method and its K, margin, α, τ and seed.
        data: folder of the packed dataset.
        device: where to train.
        report: called after each epoch with its entry of the history.
        progress: file for the progress, written at the start and after each epoch.
        checkpoints: to resume from and to write to. On a CPU a resumed run ends in the same bytes
            as one that was never stopped. Their folder holds ``history.jsonl`` too.
        seconds_between_checkpoints: minimum seconds between two checkpoints.
        stop: read after each step; if it is set, the state is saved and the training ends.

    Returns:
        The method with its trained encoders, and the history. An entry of the history holds
        ``epoch``, ``loss`` (mean over its steps, nats), the diagnostics of its last step
        (``diagnostics.measure``, ``diagnostics.Step``), ``bound`` (``diagnostics.bound``), ``lr``
        and ``effective_rate`` at its end, ``images`` and ``images_per_s``; if the study asks for it
        ``knn`` [%], on rank 0.

    Raises:
        InputError: if the batch is larger than the data, or the checkpoint is of another run.
        Diverged: if the loss stops being finite. Such a state is never saved.
        Interrupted: if ``stop`` was set; the state is saved.
    """
    training = Training(study, cell, data, device)
    epoch, history = Epoch(training), []
    resumable = Resumable(checkpoints, stop, seconds_between_checkpoints)
    if state := resumable.load():
        _print_change_of_ranks(state, cell.batch)
        training.restore(state.step, state.tensors)
        epoch.resume(state)
        history = state.values["history"]
    told = checkpoints.folder / lines.HISTORY if checkpoints and rank() == 0 else None
    if told:
        lines.begin(told, history)
    _write_progress(progress, history, training.recipe.epochs)

    while training.step < training.steps:
        epoch.add(training.advance())
        if training.step % training.steps_per_epoch == 0:
            epoch.check_finite(history)
            history.append(epoch.entry())
            every = study.evaluate.every
            if every and len(history) % every == 0:
                history[-1]["knn"] = knn_accuracy(training, study, data)
            if rank() == 0:
                report(history[-1])
            if told:
                lines.append(told, history[-1])
            _write_progress(progress, history, training.recipe.epochs)
            epoch.start()
        resumable.after_step(
            training.step, training.steps, lambda: _state(training, epoch, history)
        )

    average_statistics(training.method)
    return training.method, history


def _state(training: Training, epoch: Epoch, history: History) -> State:
    """Everything the next step depends on; raises Diverged instead of returning a NaN to save."""
    epoch.check_finite(history)
    average_statistics(training.method)
    values = {"history": history, "seconds": epoch.seconds, "ranks": ranks()}
    return State(training.step, {**epoch.tensors(), **training.tensors()}, values)


def _write_progress(path: Path | None, history: History, epochs: int) -> None:
    if path is None or rank() > 0:
        return
    write_progress(
        path,
        epoch=len(history),
        epochs=epochs,
        images_per_s=history[-1]["images_per_s"] if history else 0.0,
        seconds=sum(entry["images"] / entry["images_per_s"] for entry in history),
    )


def _print_change_of_ranks(state: State, batch: int) -> None:
    """Say in the log that another number of ranks resumes the training."""
    earlier = state.values.get("ranks", 1)
    if rank() == 0 and earlier != ranks():
        print(
            f"resumes with {ranks()} ranks after step {state.step}, trained by {earlier}: "
            f"the batch stays {batch}, {batch // ranks()} a rank",
            flush=True,
        )
