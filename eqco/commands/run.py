"""The steps of a cell as commands run them, from lock to file, by one process or several ranks."""

import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from eqco.data.packed import dataset_hash, read_manifest, verify
from eqco.data.views import Views
from eqco.errors import Diverged, InputError
from eqco.evaluation.protocols import (
    Features,
    check_unchanged,
    extract,
    frozen_backbone,
    knn,
    linear,
    linear_lbfgs,
    linear_on_views,
)
from eqco.methods import METHODS
from eqco.runtime.device import has_bfloat16_units
from eqco.runtime.files import sha256
from eqco.runtime.lock import hold
from eqco.runtime.ranks import from_first, joined, rank, ranks
from eqco.runtime.seeds import draw_seed
from eqco.runtime.signals import Stop, stop_on_signals
from eqco.store.cells import (
    CONFIG,
    ENCODER,
    SUMMARY,
    SavedEncoder,
    is_finished,
    publish,
    read_encoder,
    save_encoder,
    settings_of,
    write_json,
)
from eqco.store.checkpoint import Checkpoints
from eqco.store.provenance import peak_memory, provenance
from eqco.store.resume import PROGRESS
from eqco.study.study import KEY_SUFFIX, Cell, Study, config_hash
from eqco.training.cost import check
from eqco.training.loop import pretrain


def run(
    study: Study,
    cell: Cell,
    data: Path,
    out: Path,
    state: Path,
    *,
    device: Callable[[], torch.device],
    checkpoint_seconds: float,
) -> None:
    """Train a cell, or take what an earlier process has finished, and put its files in a folder.

    A second process on the same cell waits for the first. Of several ranks the first one reads and
    writes.

    Args:
        study: the recipe.
        cell: which cell of its grid.
        data: folder of the packed dataset.
        out: folder for the encoder, its configuration and its summary.
        state: the cell's folder for the lock, the checkpoints and the finished files.
        device: gives the device, once it is needed.
        checkpoint_seconds: at least so long from one checkpoint to the next.

    Raises:
        InputError: when data or checkpoints are not what they should be.
        Interrupted: when a signal has stopped it, or another rank was lost; the state is saved.
    """
    config = study.resolve(cell)
    made_by = {"config_hash": config_hash(config), "dataset": dataset_hash(read_manifest(data))}
    own = state / made_by["config_hash"]
    with joined(device), stop_on_signals() as stop:
        first = rank() == 0
        with hold(state / "lock", wait=True) if first else nullcontext():
            if not from_first(first and is_finished(own, made_by)):
                checkpoints = Checkpoints(own, made_by)
                result = _train(
                    study,
                    cell,
                    data,
                    device(),
                    state / PROGRESS,
                    checkpoints,
                    checkpoint_seconds,
                    stop,
                )
                if first:
                    _save(own, config, made_by, result, checkpoints)
            if first:
                publish(own, out)


def _train(
    study: Study,
    cell: Cell,
    data: Path,
    device: torch.device,
    progress: Path,
    checkpoints: Checkpoints,
    checkpoint_seconds: float,
    stop: Stop,
) -> dict[str, Any]:
    """The outcome of a pretraining: encoders, ``history``, why it ``failed``, what made it."""

    def report(epoch: dict[str, Any]) -> None:
        w = "" if epoch["weight"] is None else f"W {epoch['weight']:.3f}  "
        print(
            f"epoch {epoch['epoch']:.0f}/{study.pretrain.epochs}  loss {epoch['loss']:.4f}  "
            f"{w}lr {epoch['lr']:.2e}  {epoch['images_per_s']:,.0f} images/s",
            flush=True,
        )

    check(study, cell, device, ranks())
    if study.pretrain.precision == "bfloat16" and not has_bfloat16_units(device):
        print(
            "pretrain.precision: bfloat16: this processor emulates it, many times slower than "
            "float32",
            flush=True,
        )
    failed, tensors, key = None, {}, {}
    try:
        method, history = pretrain(
            study,
            cell,
            data,
            device=device,
            report=report,
            progress=progress,
            checkpoints=checkpoints,
            seconds_between_checkpoints=checkpoint_seconds,
            stop=stop,
        )
        tensors = method.encoder.state_dict()
        if METHODS[cell.method].momentum:
            key = method.get_submodule("key_encoder").state_dict()
    except Diverged as error:  # a result like others: the grid goes on
        failed, history = str(error), error.history
    if rank() == 0:
        try:
            verify(data, "train")  # it was mapped into memory, not copied
        except InputError:
            checkpoints.remove()
            raise
    return {
        "tensors": tensors,
        "key": key,
        "history": history,
        "failed": failed,
        "peak_memory_mb": peak_memory(device),
        "provenance": provenance(device),
    }


def _save(
    own: Path,
    config: dict[str, Any],
    made_by: dict[str, str],
    result: dict[str, Any],
    checkpoints: Checkpoints,
) -> None:
    """Write the finished files; the checkpoints have served, unless the training has failed."""
    history, failed = result["history"], result["failed"]
    if failed is not None:
        print(f"failed: {failed}")
    encoder = SavedEncoder(config, made_by["dataset"], result["tensors"], failed, result["key"])
    save_encoder(own / ENCODER, encoder)
    write_json(own / CONFIG, config)
    rates = [epoch["images_per_s"] for epoch in history]
    write_json(
        own / SUMMARY,
        {
            **made_by,
            "encoder": sha256(own / ENCODER),
            "images": sum(epoch["images"] for epoch in history),
            "seconds": round(sum(e["images"] / e["images_per_s"] for e in history), 3),
            "images_per_s": round(statistics.median(rates or [0.0]), 1),
            "history": history,
            "peak_memory_mb": result["peak_memory_mb"],
            "failed": failed,
            "provenance": result["provenance"],
        },
    )
    if failed is None:
        checkpoints.remove()


def evaluate_linear(
    study: Study,
    encoder: Path,
    data: Path,
    out: Path,
    state: Path,
    *,
    device: Callable[[], torch.device],
) -> None:
    """Rate an encoder by the linear protocols, and write what they say to a JSON file.

    Args:
        study: whose settings they are.
        encoder: file of the encoder.
        data: folder of the packed dataset.
        out: the JSON file.
        state: folder for checkpoints of a probe on views made anew.
        device: gives the device.
    """
    settings = study.evaluate

    def rate(saved: SavedEncoder, features: Features, identity: str) -> dict[str, float]:
        seed, found = saved.config["cell"]["seed"], {}
        if settings.linear_lbfgs:
            found["linear-lbfgs"] = linear_lbfgs(features, settings.linear_lbfgs)
        if settings.linear.augment is None:
            return {**found, **linear(features, settings.linear, seed)}
        views = Views(
            data,
            study.data,
            settings.linear.augment,
            batch=settings.linear.batch,
            batch_key="evaluate.linear.batch",
            views=1,
            epochs=settings.linear.epochs,
            seed=draw_seed(seed, "probe", 0),
            device=device(),
        )
        backbone = frozen_backbone(saved, views.channels).to(device())
        checkpoints = Checkpoints(state / f"linear-{identity}", {})
        with stop_on_signals() as stop:
            probed = linear_on_views(
                backbone,
                views,
                features,
                settings.linear,
                seed,
                checkpoints=checkpoints,
                stop=stop,
                progress=state / PROGRESS,
            )
        check_unchanged(backbone, saved)
        return {**found, **probed}

    _evaluate("linear.json", study, encoder, data, out, rate, device)


def evaluate_knn(
    study: Study, encoder: Path, data: Path, out: Path, *, device: Callable[[], torch.device]
) -> None:
    """Rate an encoder by the kNN protocol; arguments as for ``evaluate_linear``."""

    def rate(saved: SavedEncoder, features: Features, identity: str) -> dict[str, float]:
        return knn(features, study.evaluate.knn)

    _evaluate("knn.json", study, encoder, data, out, rate, device)


def _evaluate(
    name: str,
    study: Study,
    encoder: Path,
    data: Path,
    out: Path,
    rate: Callable[[SavedEncoder, Features, str], dict[str, float]],
    device: Callable[[], torch.device],
) -> None:
    """Write what ``rate`` says of an encoder's features; nothing of one whose training failed."""
    settings = settings_of(study.evaluate, name)
    with joined(device):
        saved = read_encoder(encoder)
        identity = {"config_hash": config_hash(saved.config), "encoder": sha256(encoder)}
        accuracies: dict[str, float] = {}
        smallest = None
        for suffix, one in _rated(saved, study, encoder) if saved.failed is None else []:
            features = extract(one, data, device=device())
            found = rate(one, features, config_hash({**identity, **settings}) + suffix)
            accuracies |= {f"{protocol}{suffix}": value for protocol, value in found.items()}
            smallest = int(features.train_labels.bincount().min())
        if rank() == 0:
            rated = {"settings": settings, "smallest_class": smallest, "accuracy": accuracies}
            write_json(out, {**identity, **rated})
            for protocol, accuracy in accuracies.items():
                print(f"{protocol} {accuracy:.2f} %")


def _rated(saved: SavedEncoder, study: Study, path: Path) -> list[tuple[str, SavedEncoder]]:
    """The encoders of a file that the study rates, each with the ending of its protocols' names."""
    if not study.evaluate.key_encoder:
        return [("", saved)]
    if not saved.key:
        raise InputError(
            f"{path}: evaluate.key_encoder: the file holds no key encoder, as those of earlier "
            "versions; delete the cell's folder and run the cell again"
        )
    return [("", saved), (KEY_SUFFIX, replace(saved, tensors=saved.key))]
