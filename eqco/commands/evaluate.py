"""``eqco linear-eval`` and its kin: the accuracies of a cell's encoder, as a JSON file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eqco.data.packed import dataset_hash, read_manifest
from eqco.errors import InputError
from eqco.evaluation.features import (
    Features,
    Renormalise,
    check_dataset,
    dataset_of,
    extract,
    features_of,
    frozen,
    frozen_backbone,
)
from eqco.evaluation.finetune import finetune
from eqco.evaluation.geometry import geometry
from eqco.evaluation.knn import knn
from eqco.evaluation.linear import with_one
from eqco.evaluation.protocols import fit
from eqco.networks.encoder import Encoder
from eqco.runtime.files import sha256
from eqco.runtime.ranks import joined, rank
from eqco.runtime.signals import stop_on_signals
from eqco.store.cells import (
    PROGRESS,
    TRANSFER,
    TUNED,
    SavedEncoder,
    read_encoder,
    settings_of,
    write_json,
)
from eqco.store.checkpoint import Checkpoints
from eqco.store.images import pack
from eqco.study.datasets import Data
from eqco.study.protocols import KEY_SUFFIX, ONLINE, VALIDATION_SUFFIX
from eqco.study.recipe import Network
from eqco.study.study import Study, config_hash


def evaluate_linear(
    study: Study, encoder: Path, data: Path, out: Path, state: Path, *, device: torch.device
) -> None:
    """Evaluate an encoder by the linear protocols, and write the accuracies to a JSON file.

    Args:
        study: for the settings of the protocols.
        encoder: file of the encoder.
        data: folder of the packed dataset.
        out: the JSON file.
        state: folder for the checkpoints and the progress of a probe on views.
        device: where to compute.

    Raises:
        InputError: if the encoder was trained on other data, or the file holds no key encoder that
            the study evaluates.
        Interrupted: if a signal has stopped a probe on views; its state is saved.
    """
    settings = study.evaluate
    evaluation = Evaluation("linear.json", study, encoder)
    channels = len(read_manifest(data)["mean"])
    with joined(device):
        for suffix, saved in evaluation.encoders():
            check_dataset(saved, data)
            backbone = frozen_backbone(saved, channels).to(device)
            features = features_of(backbone, dataset_of(saved), data, device=device)
            checkpoints = Checkpoints(state / f"linear-{evaluation.identity}{suffix}", {})
            accuracies: dict[str, float] = {}
            for name in ("linear-lbfgs", "linear"):
                accuracies |= fit(
                    name,
                    settings,
                    backbone,
                    features,
                    (study.data, data),
                    seed=saved.config["cell"]["seed"],
                    checkpoints=checkpoints,
                    progress=state / PROGRESS,
                )
            if saved.online is not None and not suffix:
                scores = with_one(features.rated) @ saved.online.to(device).T  # (R, Y)
                accuracies |= features.accuracies(ONLINE, scores)
            evaluation.add(accuracies, suffix, features)
        evaluation.write(out)


def evaluate_knn(
    study: Study, encoder: Path, data: Path, out: Path, *, device: torch.device
) -> None:
    """Evaluate an encoder by the kNN protocol; arguments as for ``evaluate_linear``."""
    evaluation = Evaluation("knn.json", study, encoder)
    with joined(device):
        for suffix, saved in evaluation.encoders():
            features = extract(saved, data, device=device)
            evaluation.add(knn(features, study.evaluate.knn), suffix, features)
            if not suffix:
                evaluation.more["geometry"] = geometry(features, saved, study.data, data, device)
        evaluation.write(out)


def evaluate_transfer(
    study: Study, encoder: Path, data: Path, out: Path, state: Path, *, device: torch.device
) -> None:
    """Evaluate an encoder on the study's further datasets; arguments as for ``evaluate_linear``.

    They lie in folders beside ``data``. Their images are normalised as the encoder's own were.
    """
    settings = study.evaluate
    evaluation = Evaluation(TRANSFER, study, encoder)
    own = read_manifest(data)
    check_dataset(evaluation.saved, data)
    for other in settings.on:
        _check_size(evaluation.saved, other, channels=len(own["mean"]))
    with joined(device):
        for suffix, saved in evaluation.encoders():
            for other in settings.on:
                folder = data.parent / other.name
                theirs = read_manifest(folder)
                normalise = Renormalise(*((m["mean"], m["std"]) for m in (theirs, own)))
                backbone = frozen_backbone(saved, len(own["mean"]))
                backbone = frozen(nn.Sequential(normalise, backbone)).to(device)
                features = features_of(backbone, other, folder, device=device)
                place = f"{suffix}@{other.name}"
                accuracies: dict[str, float] = {}
                for name in settings.sections:
                    accuracies |= fit(
                        name,
                        settings,
                        backbone,
                        features,
                        (other, folder),
                        seed=saved.config["cell"]["seed"],
                        checkpoints=Checkpoints(state / f"{evaluation.identity}{place}", {}),
                        progress=state / PROGRESS,
                    )
                evaluation.add(accuracies, place, features)
        evaluation.more["datasets"] = {
            other.name: dataset_hash(read_manifest(data.parent / other.name))
            for other in settings.on
        }
        evaluation.write(out)


def evaluate_finetune(
    study: Study, encoder: Path, data: Path, out: Path, state: Path, *, device: torch.device
) -> None:
    """Fine-tune an encoder with labels and rate it; arguments as for ``evaluate_linear``."""
    params = study.evaluate.finetune
    if params is None:
        raise InputError("evaluate.finetune: is not in the study; it holds at least an augment")
    evaluation = Evaluation(TUNED, study, encoder)
    for suffix, saved in evaluation.encoders():
        check_dataset(saved, data)
        with stop_on_signals() as stop:
            accuracies, features = finetune(
                saved,
                data,
                params,
                device=device,
                checkpoints=Checkpoints(state / f"finetune-{evaluation.identity}{suffix}", {}),
                stop=stop,
                progress=state / PROGRESS,
            )
        evaluation.add(accuracies, suffix, features)
    evaluation.write(out)


def _check_size(saved: SavedEncoder, other: Data, channels: int) -> None:
    """Refuse images of another size than the weights are for, as those of a ViT."""
    network = Network.model_validate(saved.config["network"])
    with torch.device("meta"):
        needed = Encoder(network, channels, other.size).backbone.state_dict()
    for name, tensor in needed.items():
        if saved.failed is None and tensor.shape != saved.tensors[f"backbone.{name}"].shape:
            raise InputError(
                f"evaluate.on: {other.name}: images of {other.size} pixels: {network.backbone} "
                f"of this encoder takes those of {dataset_of(saved).size} alone"
            )


class Evaluation:
    """The evaluation of one encoder file: the encoders in it, and the file of its accuracies.

    Args:
        name: of the result file, which says which settings it depends on.
        study: for the settings.
        encoder: file of the encoder.

    Attributes:
        identity: a hash of the encoder and the settings.
    """

    def __init__(self, name: str, study: Study, encoder: Path) -> None:
        self.study, self.path, self.saved = study, encoder, read_encoder(encoder)
        self.settings = settings_of(study.evaluate, name)
        self.made_by = {"config_hash": config_hash(self.saved.config), "encoder": sha256(encoder)}
        self.identity = config_hash({**self.made_by, **self.settings})
        self.accuracies: dict[str, float] = {}
        self.correct: dict[str, str] = {}
        self.more: dict[str, Any] = {}
        self.smallest_class: int | None = None

    def encoders(self) -> list[tuple[str, SavedEncoder]]:
        """The encoders to evaluate, each with the suffix of its protocols' names.

        There is none if the training failed.
        """
        if self.saved.failed is not None:
            return []
        if not self.study.evaluate.key_encoder:
            return [("", self.saved)]
        if not self.saved.key:
            raise InputError(
                f"{self.path}: evaluate.key_encoder: the file holds no key encoder, as those of "
                "earlier versions; delete the cell's folder and run the cell again"
            )
        return [("", self.saved), (KEY_SUFFIX, replace(self.saved, tensors=self.saved.key))]

    def add(self, accuracies: dict[str, float], suffix: str, features: Features) -> None:
        """Add the accuracies (percent, by protocol) of one of the encoders."""
        for protocol, value in accuracies.items():
            name, *rest = protocol.partition(VALIDATION_SUFFIX)
            self.accuracies["".join([name, suffix, *rest])] = value
        for protocol, correct in features.correct.items():
            self.correct[protocol + suffix] = pack(correct.cpu().numpy())
        self.smallest_class = int(features.train_labels.bincount().min())

    def write(self, out: Path) -> None:
        """Write the result file and print the accuracies; rank 0 alone does."""
        if rank() > 0:
            return
        result = {
            "settings": self.settings,
            "smallest_class": self.smallest_class,
            "accuracy": self.accuracies,
            "correct": self.correct,
            **self.more,
        }
        write_json(out, {**self.made_by, **result})
        for protocol, accuracy in self.accuracies.items():
            print(f"{protocol} {accuracy:.2f} %")
