"""``eqco evaluate``: the accuracies of any backbone's weights, as rows of a table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pydantic import ValidationError
from torch import nn

from eqco.data.packed import dataset_hash, read_manifest, section
from eqco.errors import InputError
from eqco.evaluation.features import Renormalise, features_of, frozen
from eqco.evaluation.protocols import fit
from eqco.networks.encoder import Encoder
from eqco.networks.weights import load_backbone, read_weights
from eqco.runtime.files import canonical, sha256, write
from eqco.runtime.ranks import joined, rank
from eqco.store.cells import PROGRESS, made_here, read_encoder
from eqco.store.checkpoint import Checkpoints
from eqco.study.protocols import Evaluate
from eqco.study.recipe import Network
from eqco.study.study import Study, config_hash

SEED = 0  # of the protocols that draw
COLUMNS = (
    *("weights", "sha256", "prefix", "backbone", "stem", "dataset", "checksum", "mean", "std"),
    *("protocol", "settings", "accuracy"),
)
NOT_A_SETTING = ("weights", "accuracy")  # rows that agree in all else are of one evaluation


@dataclass(frozen=True)
class Source:
    """Weights in a file, and the network that they are of.

    Args:
        file: safetensors, or a checkpoint of torch.
        backbone: as in a study's ``network.backbone``; None for an encoder of this project.
        stem: of a ResNet.
        prefix: of the names of the backbone's weights; None: it is found.
        mean: of each channel of the images that the backbone expects, in [0, 1]; None: the
            evaluated dataset's.
        std: the deviations that go with ``mean``.
    """

    file: Path
    backbone: str | None = None
    stem: str = "large"
    prefix: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None


def evaluate_weights(
    source: Source,
    data: Path,
    protocols: list[str] | None,
    out: Path,
    state: Path,
    study: Study | None = None,
    *,
    device: torch.device,
) -> None:
    """Evaluate a backbone, and add a row per protocol to a table.

    Args:
        source: the weights.
        data: folder of the packed dataset.
        protocols: of ``Evaluate.sections``, each with its variants; None: all with settings.
        out: CSV file; rows of the same evaluation are replaced.
        state: folder for the checkpoints and the progress of a probe on views.
        study: for the settings of the protocols and the images to use; None: all images, and each
            protocol's default settings.
        device: where to compute.

    Raises:
        InputError: if weights, dataset, protocols or table are not what they have to be.
        Interrupted: if a signal has stopped a probe on views; its state is saved.
    """
    if not source.file.is_file():
        raise InputError(
            f"{source.file}: is no file; allowed are safetensors and torch checkpoints"
        )
    manifest, spec = read_manifest(data), study.data if study else section(data)
    if spec.name != manifest["name"]:
        raise InputError(f"--data: {data}: holds {manifest['name']}, the study is of {spec.name}")
    settings = study.evaluate if study else Evaluate()
    names = _names(protocols, settings)
    _read(out)
    network = _network(source)
    backbone, prefix = _backbone(source, network, manifest, spec.size)
    row: dict[str, Any] = {
        "weights": source.file,
        "sha256": sha256(source.file),
        "prefix": prefix,
        "backbone": network.backbone,
        "stem": network.stem,
        "dataset": spec.name,
        "checksum": dataset_hash(manifest),
        "mean": canonical(source.mean or manifest["mean"]),
        "std": canonical(source.std or manifest["std"]),
    }
    rows = []
    with joined(device):
        features = features_of(backbone.to(device), spec, data, device=device)
        for name in names:
            params = settings.sections[name].model_dump(mode="json")
            one = {**row, "settings": canonical(params)}
            accuracies = fit(
                name,
                settings,
                backbone,
                features,
                (spec, data),
                seed=SEED,
                checkpoints=Checkpoints(state / f"linear-{_identity(one)}", {}),
                progress=state / PROGRESS,
            )
            for protocol, accuracy in accuracies.items():
                rows.append({**one, "protocol": protocol, "accuracy": f"{accuracy:.2f}"})
        if rank() == 0:
            _add(rows, out)
            for one in rows:
                print(f"{one['protocol']} {one['accuracy']} %")


def _identity(row: dict[str, Any]) -> str:
    """16 hex digits that name an evaluation."""
    return config_hash({name: row[name] for name in row if name not in NOT_A_SETTING})


def _names(asked: list[str] | None, settings: Evaluate) -> list[str]:
    """The protocols that are asked for, all that have settings by default."""
    for name in asked or []:
        if name not in settings.sections:
            allowed = ", ".join(settings.sections)
            raise InputError(f"--protocols: {name!r}: allowed are {allowed}")
        if settings.sections[name] is None:
            raise InputError(f"--protocols: {name}: is null in the study's evaluate")
    given = [name for name, section in settings.sections.items() if section is not None]
    return [name for name in given if asked is None or name in asked]


def _network(source: Source) -> Network:
    """The network that the weights are said to be of; an encoder of this project says it itself."""
    if not made_here(source.file):
        if source.backbone is None:
            raise InputError(f"{source.file}: --backbone is missing, as a study's network.backbone")
        try:
            return Network.model_validate(
                {"backbone": source.backbone, "stem": source.stem, "projector": [1]}
            )
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise InputError(f"--backbone: {source.backbone!r}: {message}") from None
    saved = read_encoder(source.file)
    if saved.failed is not None:
        raise InputError(f"{source.file}: has no weights, as its training failed: {saved.failed}")
    network = Network.model_validate(saved.config["network"])
    if source.backbone not in (None, network.backbone):
        allowed = f"the encoder in {source.file} is of {network.backbone}"
        raise InputError(f"--backbone: {source.backbone}: {allowed}")
    return network


def _backbone(
    source: Source, network: Network, manifest: dict[str, Any], size: int
) -> tuple[nn.Module, str]:
    """The frozen backbone with its weights, and their prefix in the file."""
    channels = len(manifest["mean"])
    for option, values in (("--mean", source.mean), ("--std", source.std)):
        if values is not None and len(values) != channels:
            raise InputError(f"{option}: {values}: the images have {channels} channels")
    backbone = Encoder(network, channels, size).backbone
    name = f"{network.backbone} of {channels}-channel images"
    tensors = read_weights(source.file)
    prefix = load_backbone(backbone, name, tensors, str(source.file), source.prefix)
    if source.mean or source.std:
        ours = (manifest["mean"], manifest["std"])
        theirs = (source.mean or ours[0], source.std or ours[1])
        backbone = nn.Sequential(Renormalise(ours, theirs), backbone)
    return frozen(backbone), prefix


def _read(path: Path) -> pd.DataFrame:
    """The table so far; raises InputError if the file is no such table."""
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:  # of pandas' parser, and of text that is not UTF-8
        raise InputError(f"--out: {path}: is not a table: {error}") from None
    if tuple(table) != COLUMNS:
        raise InputError(
            f"--out: {path}: is another table; allowed is one of this command, or none"
        )
    return table


def _add(rows: list[dict[str, Any]], path: Path) -> None:
    """Add rows to the table, in place of those of the same evaluation."""
    added = pd.DataFrame(rows, columns=COLUMNS).astype(str)
    keys = [name for name in COLUMNS if name not in NOT_A_SETTING]
    table = pd.concat([_read(path), added]).drop_duplicates(keys, keep="last")
    write(path, table.to_csv(index=False))
