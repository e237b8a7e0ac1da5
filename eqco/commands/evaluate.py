"""``eqco linear-eval`` and ``eqco knn-eval``: the accuracies of an encoder, as a JSON file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eqco.data.packed import read_manifest
from eqco.data.views import Views
from eqco.errors import InputError
from eqco.evaluation.features import Features, extract, frozen_backbone, unchanged
from eqco.evaluation.geometry import geometry
from eqco.evaluation.knn import knn
from eqco.evaluation.linear import linear, linear_on_views, with_one
from eqco.evaluation.logistic import linear_lbfgs
from eqco.runtime.files import sha256
from eqco.runtime.ranks import joined, rank
from eqco.runtime.seeds import draw_seed
from eqco.runtime.signals import stop_on_signals
from eqco.store.cells import PROGRESS, SavedEncoder, read_encoder, settings_of, write_json
from eqco.store.checkpoint import Checkpoints
from eqco.store.images import pack
from eqco.study.datasets import Data
from eqco.study.protocols import KEY_SUFFIX, ONLINE, VALIDATION_SUFFIX, Linear
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
            features = extract(saved, data, device=device)
            accuracies: dict[str, float] = {}
            seed = saved.config["cell"]["seed"]
            if settings.linear_lbfgs:
                accuracies |= linear_lbfgs(features, settings.linear_lbfgs, seed)
            if settings.linear.augment is None:
                accuracies |= linear(features, settings.linear, seed)
            else:
                accuracies |= on_views(
                    frozen_backbone(saved, channels).to(device),
                    features,
                    settings.linear,
                    (study.data, data),
                    seed=seed,
                    checkpoints=Checkpoints(state / f"linear-{evaluation.identity}{suffix}", {}),
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


def on_views(
    backbone: nn.Module,
    features: Features,
    params: Linear,
    dataset: tuple[Data, Path],
    *,
    seed: int,
    checkpoints: Checkpoints,
    progress: Path,
) -> dict[str, float]:
    """The accuracies of the linear protocol on new views in each epoch, which can be stopped.

    Args:
        backbone: frozen, on the device of its features.
        features: by it.
        params: the protocol, with ``augment``.
        dataset: its section of a study, and the folder of the packed dataset.
        seed: for the layers' weights and the views.
        checkpoints: to resume from.
        progress: file for the progress.

    Raises:
        Interrupted: if a signal has stopped it; its state is saved.
    """
    assert params.augment is not None
    spec, data = dataset
    views = Views(
        data,
        spec,
        params.augment,
        batch=params.batch,
        batch_key="evaluate.linear.batch",
        views=1,
        epochs=params.epochs,
        seed=draw_seed(seed, "probe", 0),
        device=features.test.device,
    )
    with stop_on_signals() as stop, unchanged(backbone):
        return linear_on_views(
            backbone,
            views,
            features,
            params,
            seed,
            checkpoints=checkpoints,
            stop=stop,
            progress=progress,
        )
