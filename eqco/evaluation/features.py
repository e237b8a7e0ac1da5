"""Features of a frozen backbone, on which the protocols work.

They are extracted once, from the clean images, with the backbone in eval mode. docs/protocols.md
says how each protocol differs from others' of the same name.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from eqco.data.jpegs import Centres, in_workers
from eqco.data.operations import normalise
from eqco.data.packed import dataset_hash, images_of, load, read_manifest
from eqco.data.validation import to_validate
from eqco.errors import InputError
from eqco.networks.encoder import Encoder
from eqco.store.cells import SavedEncoder
from eqco.study.datasets import Data
from eqco.study.protocols import VALIDATION_SUFFIX
from eqco.study.recipe import Network

BATCH = 256  # images per pass; on a CPU faster than 1,024 (benchmarks/records.md)


@dataclass(frozen=True)
class Features:
    """Features (M, F) float32 and labels (M,) of the splits, and the number of classes.

    Without ``data.validation`` there are no validation images. ``correct`` remembers, for each
    protocol that has rated, which test images it got right: (T,) bool.
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    classes: int
    validation: Tensor | None = None
    validation_labels: Tensor | None = None
    correct: dict[str, Tensor] = field(default_factory=dict)

    @property
    def rated(self) -> Tensor:
        """Features (R, F) of the images that a protocol rates: test, then validation."""
        return self.test if self.validation is None else torch.cat([self.test, self.validation])

    def accuracies(self, protocol: str, scores: Tensor) -> dict[str, float]:
        """The accuracies of a protocol from the scores (R, Y) of the rated images.

        Returns:
            Percent on the test images, by the protocol's name; if there are validation images, also
            on these, by the name that ends in ``@validation``.
        """
        test = len(self.test_labels)
        predicted = scores.argmax(dim=1)  # (R,)
        self.correct[protocol] = predicted[:test] == self.test_labels
        accuracies = {protocol: percent(self.correct[protocol])}
        if self.validation_labels is not None:
            on_validation = percent(predicted[test:] == self.validation_labels)
            accuracies[f"{protocol}{VALIDATION_SUFFIX}"] = on_validation
        return accuracies


def percent(correct: Tensor) -> float:
    """Percent of images (M,) that are right."""
    return 100 * float(correct.double().mean())


def frozen_backbone(saved: SavedEncoder, channels: int) -> nn.Module:
    """The backbone of a saved encoder in eval mode, without gradients."""
    network = Network.model_validate(saved.config["network"])
    encoder = Encoder(network, channels, dataset_of(saved).size)
    encoder.load_state_dict(saved.tensors)
    return frozen(encoder.backbone)


def frozen(backbone: nn.Module) -> nn.Module:
    """A backbone in eval mode, without gradients, channels last."""
    return backbone.eval().requires_grad_(False).to(memory_format=torch.channels_last)


class Renormalise(nn.Module):
    """Images (B, C, H, W) that are normalised by a mean and a deviation, as another's would be.

    Args:
        ours: mean and deviation of each channel by which they are normalised.
        theirs: those by which a backbone expects them.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, ours: tuple[list[float], list[float]], theirs: tuple[list[float], list[float]]
    ) -> None:
        super().__init__()
        mean, std, their_mean, their_std = (
            torch.tensor(values)[:, None, None] for values in (*ours, *theirs)
        )  # (C, 1, 1)
        self.register_buffer("scale", std / their_std)
        self.register_buffer("shift", (mean - their_mean) / their_std)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


@contextmanager
def unchanged(backbone: nn.Module) -> Iterator[None]:
    """Raise AssertionError if a parameter or a buffer has another value at the end."""
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    yield
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} has changed"


def check_dataset(saved: SavedEncoder, data: Path) -> None:
    """Raise InputError if an encoder was trained on another dataset than the one in ``data``."""
    if saved.dataset != dataset_hash(read_manifest(data)):
        raise InputError(f"{data}: is another dataset than the encoder was trained on")


def extract(saved: SavedEncoder, data: Path, *, device: torch.device) -> Features:
    """Features of a saved encoder, as ``features_of``.

    Raises:
        InputError: if the encoder was trained on another dataset than the one in ``data``.
    """
    check_dataset(saved, data)
    channels = len(read_manifest(data)["mean"])
    backbone = frozen_backbone(saved, channels).to(device)
    return features_of(backbone, dataset_of(saved), data, device=device)


def features_of(backbone: nn.Module, spec: Data, data: Path, *, device: torch.device) -> Features:
    """Features of the clean images of all splits, by a backbone in eval mode.

    Args:
        backbone: on the device; normalised images (B, C, H, W) to features (B, F).
        spec: the dataset's section of a study.
        data: folder of the packed dataset.
        device: where to compute.

    Raises:
        AssertionError: if the extraction changed a parameter or a buffer of the backbone.
    """
    manifest = read_manifest(data)
    splits = {
        "train": load(data, "train", spec.images),
        "test": load(data, "test"),
    }
    labels = splits["train"]["labels"].to(device)
    validation = to_validate(splits["train"]["labels"], spec).to(device)
    mean, std = (torch.tensor(manifest[name], device=device) for name in ("mean", "std"))

    def features(split: str) -> Tensor:
        images = images_of(splits[split], spec)
        batches: Iterable[Tensor]
        if isinstance(images, Tensor):
            batches = images.split(1024 if device.type == "cuda" else BATCH)
        else:
            centres = Centres(images, batch=BATCH)
            batches = in_workers(centres, range(len(centres)), device)
        parts = [
            backbone(normalise(batch.to(device).float() / 255, mean, std)) for batch in batches
        ]
        return torch.cat(parts)  # (M, F)

    with unchanged(backbone):
        train, test = features("train"), features("test")
    return Features(
        train=train[~validation] if spec.validation else train,
        train_labels=labels[~validation],
        test=test,
        test_labels=splits["test"]["labels"].to(device),
        classes=len(manifest["classes"]),
        validation=train[validation] if spec.validation else None,
        validation_labels=labels[validation] if spec.validation else None,
    )


def dataset_of(saved: SavedEncoder) -> Data:
    """The dataset's section of the study that an encoder was trained by."""
    values = dict(saved.config["data"])
    if values["kind"].endswith("-folder"):
        values["path"] = ""  # a saved configuration leaves out where the images lay
    return TypeAdapter(Data).validate_python(values)
