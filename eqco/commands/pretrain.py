"""``eqco pretrain``: train one cell and put its files in its folder."""

import statistics
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from eqco.commands.tensorboard import Report
from eqco.data.packed import dataset_hash, read_manifest, verify
from eqco.errors import Diverged, InputError
from eqco.runtime.device import has_bfloat16_units
from eqco.runtime.files import sha256
from eqco.runtime.lock import hold
from eqco.runtime.ranks import from_rank_0, joined, rank, ranks
from eqco.runtime.signals import Stop, stop_on_signals
from eqco.store.cells import (
    CONFIG,
    ENCODER,
    PROGRESS,
    SUMMARY,
    SavedEncoder,
    is_finished,
    publish,
    save_encoder,
    write_json,
)
from eqco.store.checkpoint import Checkpoints
from eqco.store.provenance import peak_memory, provenance
from eqco.study.cell import Cell
from eqco.study.grid import GridCell
from eqco.study.methods import METHODS
from eqco.study.study import Study
from eqco.training.cost import check
from eqco.training.loop import pretrain


def pretrain_cell(
    study: Study,
    cell: GridCell,
    data: Path,
    out: Path,
    state: Path,
    *,
    device: torch.device,
    checkpoint_seconds: float,
    report: Report = lambda entry: None,
) -> None:
    """Train a cell, or reuse the files that an earlier process has finished, and publish them.

    A second process on the same cell waits for the first. Rank 0 reads and writes for all ranks.

    Args:
        study: the recipe.
        cell: a cell of the study's grid.
        data: folder of the packed dataset.
        out: folder for the encoder, its configuration and its summary.
        state: the cell's folder for the lock, the progress, the checkpoints and the finished files.
        device: where to train.
        checkpoint_seconds: minimum seconds between two checkpoints.
        report: called after each epoch with its entry of the history, on rank 0.

    Raises:
        InputError: if data or checkpoints are not of this configuration, or damaged.
        Interrupted: if a signal has stopped it, or another rank was lost; the state is saved.
    """
    made_by = {"config_hash": cell.hash, "dataset": dataset_hash(read_manifest(data))}
    folder = state / cell.hash
    checkpoints = Checkpoints(folder, made_by)
    with (
        stop_on_signals() as stop,  # around the ranks: one that has lost another ends in peace too
        joined(device),
        hold(state / "lock", wait=True) if rank() == 0 else nullcontext(),
    ):
        if not from_rank_0(rank() == 0 and is_finished(folder, made_by)):
            progress = state / PROGRESS
            result = _train(
                *(study, cell.cell, data, device, progress),
                *(checkpoints, checkpoint_seconds, stop, report),
            )
            if rank() == 0:
                _save(folder, cell.config, made_by, result)
                if result["failed"] is None:
                    checkpoints.remove()
        if rank() == 0:
            publish(folder, out)


def _train(
    study: Study,
    cell: Cell,
    data: Path,
    device: torch.device,
    progress: Path,
    checkpoints: Checkpoints,
    checkpoint_seconds: float,
    stop: Stop,
    report: Report,
) -> dict[str, Any]:
    """The result of a training: its tensors, ``history``, ``failed`` and provenance.

    The tensors are those of ``SavedEncoder``. A training that diverges is a result too, so that the
    grid goes on: ``failed`` says why.
    """
    study = study.of(cell)
    check(study, cell, device, ranks())
    if study.pretrain.precision == "bfloat16" and not has_bfloat16_units(device):
        print(
            "pretrain.precision: bfloat16: this processor emulates it, many times slower than "
            "float32",
            flush=True,
        )

    def tell(entry: dict[str, Any]) -> None:
        _print_epoch(entry, study.pretrain.epochs)
        report(entry)

    failed, tensors, key, online = None, {}, {}, None
    try:
        method, history = pretrain(
            study,
            cell,
            data,
            device=device,
            report=tell,
            progress=progress,
            checkpoints=checkpoints,
            seconds_between_checkpoints=checkpoint_seconds,
            stop=stop,
        )
        tensors = method.encoder.state_dict()
        if METHODS[cell.method].momentum:
            key = method.get_submodule("key_encoder").state_dict()
        if study.pretrain.online:
            online = method.get_buffer("online.weight")
    except Diverged as error:
        failed, history = str(error), error.history
    if rank() == 0:
        try:
            verify(data, study.data.pretrained_on)  # it was mapped into memory, not copied
        except InputError:
            checkpoints.remove()
            raise
    return {
        "tensors": tensors,
        "key": key,
        "online": online,
        "history": history,
        "failed": failed,
        "peak_memory_mb": peak_memory(device),
        "provenance": provenance(device),
    }


def _print_epoch(entry: dict[str, Any], epochs: int) -> None:
    w = "" if entry["weight"] is None else f"W {entry['weight']:.3f}  "
    print(
        f"epoch {entry['epoch']:.0f}/{epochs}  loss {entry['loss']:.4f}  "
        f"{w}lr {entry['lr']:.2e}  {entry['images_per_s']:,.0f} images/s",
        flush=True,
    )


def _save(
    folder: Path, config: dict[str, Any], made_by: dict[str, str], result: dict[str, Any]
) -> None:
    """Write the encoder, its configuration and, last, the summary."""
    history, failed = result["history"], result["failed"]
    if failed is not None:
        print(f"failed: {failed}")
    encoder = SavedEncoder(
        config,
        made_by["dataset"],
        result["tensors"],
        failed,
        key=result["key"],
        online=result["online"],
    )
    save_encoder(folder / ENCODER, encoder)
    write_json(folder / CONFIG, config)
    speeds = [entry["images_per_s"] for entry in history]
    write_json(
        folder / SUMMARY,
        {
            **made_by,
            "encoder": sha256(folder / ENCODER),
            "images": sum(entry["images"] for entry in history),
            "seconds": round(sum(e["images"] / e["images_per_s"] for e in history), 3),
            "images_per_s": round(statistics.median(speeds or [0.0]), 1),
            "history": history,
            "peak_memory_mb": result["peak_memory_mb"],
            "failed": failed,
            "provenance": result["provenance"],
        },
    )
