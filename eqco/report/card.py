"""Model cards: a page of Markdown that goes with an exported encoder."""

import json
from pathlib import Path
from typing import Any

from eqco.data.packed import MANIFEST, dataset_hash, read_manifest
from eqco.errors import InputError
from eqco.evaluation.features import dataset_of
from eqco.networks.backbones import timm_options
from eqco.report.templates import render
from eqco.runtime.files import sha256
from eqco.store.cells import EVALUATIONS, SUMMARY, SavedEncoder, read_json
from eqco.study.protocols import KEY_SUFFIX


def model_card(
    saved: SavedEncoder, encoder: Path, to: str, file: str, shapes: dict[str, Any]
) -> str:
    """The card of an exported encoder: how to load it, configuration, accuracies, provenance.

    Accuracies and provenance are those of the files of its cell that lie beside it. The images'
    mean and std are given where ``data/<name>`` has the dataset that it was trained on.

    Args:
        saved: the encoder.
        encoder: its file.
        to: the format of the exported file.
        file: name of the exported file.
        shapes: ``images``, [C, H, W], and ``features``, F.

    Raises:
        InputError: if a file beside it is damaged, or of another encoder.
    """
    digest = sha256(encoder)
    accuracies: dict[str, float] = {}
    for name in EVALUATIONS:
        accuracies |= _beside(encoder, name, digest).get("accuracy", {})
    data = dataset_of(saved)
    cell, recipe = saved.config["cell"], saved.config["pretrain"]
    network = saved.config["network"]
    channels, side, _ = shapes["images"]
    model, options = timm_options(network["backbone"], channels, side) if to == "timm" else ("", {})
    text = render(
        "card.md.jinja",
        **shapes,
        to=to,
        file=file,
        dataset=data.name,
        statistics=_statistics(saved, Path("data", data.name)),
        network=network,
        model=model,
        options=options,
        cell=cell,
        optimizer=cell.get("optimizer") or recipe.get("optimizer", "sgd"),
        epochs=recipe["epochs"],
        config=json.dumps(saved.config, indent=2),
        accuracies={name: v for name, v in accuracies.items() if KEY_SUFFIX not in name},
        encoder=digest,
        checksum=saved.dataset,
        summary=_beside(encoder, SUMMARY, digest),
    )
    return text + "\n"


def _beside(encoder: Path, name: str, digest: str) -> dict[str, Any]:
    """A file of the encoder's cell, empty where there is none."""
    path = encoder.parent / name
    if not path.exists():
        return {}
    values = read_json(path)
    if values.get("encoder") != digest:
        raise InputError(
            f"{path}: encoder: {values.get('encoder')}: belongs to another encoder, the card needs "
            f"{digest}; delete it or make it again"
        )
    return values


def _statistics(saved: SavedEncoder, folder: Path) -> dict[str, list[float]] | None:
    """Mean and std of each channel, (C,) in [0, 1]; None where the dataset is not there."""
    if not (folder / MANIFEST).exists():
        return None
    manifest = read_manifest(folder)
    same = dataset_hash(manifest) == saved.dataset
    return {name: manifest[name] for name in ("mean", "std")} if same else None
