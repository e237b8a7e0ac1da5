"""The files of a cell: its encoder, its summary, its evaluations, and the ties between them."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqco.errors import InputError
from eqco.runtime.files import canonical, flush, make_folder, sha256, write
from eqco.study.protocols import Evaluate

if TYPE_CHECKING:
    import torch

ENCODER, CONFIG, SUMMARY = "encoder.safetensors", "config.json", "pretrain.json"
MADE_BY = "made_by"
PROGRESS = "progress.json"  # in a cell's state folder, beside its lock
# of a study that asks for them
TUNED, TRANSFER = "finetune.json", "transfer.json"
EVALUATIONS = {  # and the settings that they read
    "linear.json": {"linear", "linear_lbfgs", "key_encoder"},
    "knn.json": {"knn", "key_encoder"},
    TUNED: {"finetune", "key_encoder"},
    TRANSFER: {"on", "linear", "linear_lbfgs", "knn", "key_encoder"},
}
KEY_PREFIX = "key."  # begins the names of the key encoder's tensors
ONLINE_WEIGHT = "online.weight"
Files = dict[str, dict[str, Any]]  # what they hold, by their names


@dataclass(frozen=True)
class SavedEncoder:
    """The content of an encoder's file: tensors, and the configuration and dataset that made them.

    Or, in place of tensors, why there are none: ``failed``. ``key`` holds the key encoder's tensors
    of a method that has one, ``online`` the weight (Y, F + 1) of ``OnlineClassifier``.
    """

    config: dict[str, Any]
    dataset: str
    tensors: "dict[str, torch.Tensor]"
    failed: str | None = None
    key: "dict[str, torch.Tensor]" = field(default_factory=dict)
    online: "torch.Tensor | None" = None


def save_encoder(path: Path, saved: SavedEncoder) -> None:
    """Write an encoder's weights as safetensors, with what made them in the file's metadata."""
    from safetensors.torch import save

    every = {**saved.tensors, **{KEY_PREFIX + name: tensor for name, tensor in saved.key.items()}}
    if saved.online is not None:
        every[ONLINE_WEIGHT] = saved.online
    tensors = {name: tensor.cpu().contiguous() for name, tensor in every.items()}
    made_by = {"config": saved.config, "dataset": saved.dataset, "failed": saved.failed}
    # one entry: safetensors writes several in an order that changes from run to run
    write(path, save(tensors, {MADE_BY: canonical(made_by)}))


def read_encoder(path: Path) -> SavedEncoder:
    """Read what ``save_encoder`` wrote; raises InputError for anything else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            made_by = json.loads((file.metadata() or {})[MADE_BY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        names = [name for name in tensors if name.startswith(KEY_PREFIX)]
        key = {name.removeprefix(KEY_PREFIX): tensors.pop(name) for name in names}
        online = tensors.pop(ONLINE_WEIGHT, None)
        config, dataset, failed = (made_by[name] for name in ("config", "dataset", "failed"))
        return SavedEncoder(config, dataset, tensors, failed, key, online)
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; `python -m eqco pretrain` makes it") from None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: is not an encoder of this project: {error}") from None


def made_here(path: Path) -> bool:
    """Whether a file is of ``save_encoder``, rather than weights of others."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return MADE_BY in (file.metadata() or {})
    except SafetensorError:
        return False


def is_finished(folder: Path, made_by: dict[str, str]) -> bool:
    """Whether a folder holds the whole result of a pretraining with this hash and dataset."""
    try:
        summary = read_json(folder / SUMMARY)
        same = all(summary.get(name) == value for name, value in made_by.items())
        return same and summary.get("encoder") == sha256(folder / ENCODER)
    except (InputError, OSError):
        return False


def publish(source: Path, out: Path) -> None:
    """Put the files of a finished pretraining in the cell's folder, each whole, the summary last.

    They are links where the file system has them: both folders together hold one copy.
    """
    make_folder(out)
    for name in (ENCODER, CONFIG, SUMMARY):
        temporary = out / f".{name}.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)
        try:
            os.link(source / name, temporary)
        except OSError:  # another file system, or one without links
            write(out / name, (source / name).read_bytes())
        else:
            temporary.replace(out / name)
            temporary.unlink(missing_ok=True)  # a rename between links of one file does nothing
            flush(out)


def state_folder(results: Path, path: str) -> Path:
    """The folder of a cell's lock, progress and checkpoints, or where it would be.

    Without ``--state``, ``eqco pretrain`` puts it into the cell's own folder.
    """
    folders = (results / "state" / path, results / "cells" / path / "state")
    return next((folder for folder in folders if folder.exists()), folders[0])


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write plain values as indented JSON, whole or not at all."""
    write(path, json.dumps(values, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a result file; raises InputError where it is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{path}: is damaged: not JSON") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: is damaged: not a result")
    return values


def evaluations(evaluate: Evaluate) -> list[str]:
    """The files of a cell's evaluations, by a study's settings of them."""
    asked = {TUNED: evaluate.finetune is not None, TRANSFER: bool(evaluate.on)}
    return [name for name in EVALUATIONS if asked.get(name, True)]


def files_of(evaluate: Evaluate) -> list[str]:
    """The files of a cell that its table reads."""
    return [SUMMARY, *evaluations(evaluate)]


def settings_of(evaluate: Evaluate, name: str) -> dict[str, Any]:
    """The settings that an evaluation's file depends on."""
    where = {"on": {"__all__": {"root", "path"}}}  # the files lie is not what they are
    return evaluate.model_dump(mode="json", include=EVALUATIONS[name], exclude=where)


def read_files(folder: Path, evaluate: Evaluate) -> Files:
    """The files of a cell that the table reads; raises InputError if one is missing or damaged."""
    return {name: read_json(folder / name) for name in files_of(evaluate)}


def read_cell(
    folder: Path, config: str, evaluate: Evaluate, kept: Files | None = None
) -> tuple[dict[str, Any], dict[str, float]]:
    """The summary of a cell's pretraining, and its accuracies (percent) by protocol.

    Of a training that failed there are none, and the summary says why: ``failed``. The summary also
    has ``smallest_class``, the training images of the smallest class, where kNN has told it, and
    ``correct``, by protocol which test images are right (``images.unpack``), and ``geometry``, of
    ``evaluation.geometry``, where these were kept.

    Args:
        folder: of the cell.
        config: the hash of the configuration that the study resolves to for it.
        evaluate: the study's settings of the evaluations.
        kept: of ``kept.stand_ins``, in place of the folder.

    Raises:
        InputError: when a file is missing, or does not belong to this configuration, or an
            evaluation rates another encoder than the cell's.
    """
    files = kept or read_files(folder, evaluate)
    if wrong := mismatch(files, config, evaluate):
        name, key, found, expected = wrong
        raise InputError(
            f"{folder / name}: {key}: {found}: belongs to another run, the table "
            f"needs {expected}; delete the folder and run the cell again"
        )
    accuracies: dict[str, float] = {}
    correct: dict[str, str] = {}
    for name in evaluations(evaluate):
        accuracies |= files[name].get("accuracy", {})
        correct |= files[name].get("correct", {})
    more = {name: files["knn.json"].get(name) for name in ("smallest_class", "geometry")}
    return {**files[SUMMARY], **more, "correct": correct}, accuracies


def mismatch(
    files: Files, expected_hash: str, evaluate: Evaluate
) -> tuple[str, str, Any, Any] | None:
    """The first thing by which a cell's files are not of this configuration and these settings.

    Returns:
        File, key, the value found and the value expected; None where all belong together.
    """
    for name in files_of(evaluate):
        found = files.get(name, {})  # an archive may be older than a study's further datasets
        for key, expected in (
            ("config_hash", expected_hash),
            ("encoder", files[SUMMARY].get("encoder")),
            ("settings", settings_of(evaluate, name) if name in EVALUATIONS else None),
        ):
            if found.get(key) != expected:
                return name, key, found.get(key), expected
    return None
