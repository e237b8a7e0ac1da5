"""Packed datasets: uint8 images, one safetensors file per split, memory-mapped when read.

A folder holds ``train.safetensors``, ``test.safetensors`` and ``MANIFEST.json``; STL-10 also
``unlabelled.safetensors``, which encoders are pretrained on. The manifest is written last. It
describes the splits and holds their checksums; ``load`` refuses files that do not match it.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eqco.errors import InputError
from eqco.runtime.files import canonical, sha256, write
from eqco.study.datasets import Data, ImageFolder, JpegFolder

if TYPE_CHECKING:
    import torch

    from eqco.data.jpegs import Jpegs

MANIFEST = "MANIFEST.json"


@dataclass(frozen=True)
class Packed:
    """One split: images (M, C, H, W) uint8, labels (M,) int64 or -1, the classes' names."""

    images: np.ndarray
    labels: np.ndarray
    classes: list[str]


def pack(splits: dict[str, Packed], name: str, out: Path) -> None:
    """Write the splits of a dataset, ``train``, ``test`` and others, and its manifest."""
    from safetensors.numpy import save

    (out / MANIFEST).unlink(missing_ok=True)
    shapes = {}
    for split, packed in splits.items():
        write(
            out / f"{split}.safetensors", save({"images": packed.images, "labels": packed.labels})
        )
        shapes[split] = list(packed.images.shape)
    images = splits.get("unlabelled", splits["train"]).images  # what encoders are pretrained on
    levels = np.zeros((images.shape[1], 256), np.int64)
    for part in np.array_split(images, len(images) // 10_000 + 1):  # numpy counts 8 bytes a pixel
        levels += [np.bincount(part[:, c].ravel(), minlength=256) for c in range(len(levels))]
    write_manifest(out, name, splits["train"].classes, levels, shapes)


def write_manifest(
    out: Path,
    name: str,
    classes: list[str],
    histogram: np.ndarray,
    shapes: dict[str, list[int | None]],
    **more: Any,
) -> None:
    """Write the manifest of the splits in a folder.

    Args:
        out: the folder.
        name: of the dataset.
        classes: their names, in the order of the labels.
        histogram: counts (C, 256) of the levels of each channel in the training images.
        shapes: (M, C, H, W) of each split; None for a size that varies.
        more: further entries.
    """
    mean, std = channel_statistics(histogram)
    manifest: dict[str, Any] = {"name": name, "classes": classes, "mean": mean, "std": std, **more}
    manifest["splits"] = {}
    for split, shape in shapes.items():
        path = out / f"{split}.safetensors"
        manifest["splits"][split] = {
            "shape": shape,
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
        }
    manifest["checksum"] = _checksum(manifest)
    write(out / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _checksum(manifest: dict[str, Any]) -> str:
    """The sha256 of a manifest without its checksum."""
    rest = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(canonical(rest).encode()).hexdigest()


def channel_statistics(histogram: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, in [0, 1], from counts of its levels (C, 256).

    Exact, without a float copy of the images. A constant channel gets the standard deviation 1, so
    that it can be divided by.
    """
    levels = np.arange(256) / 255
    means, stds = [], []
    for counts in histogram:
        mean = float(counts @ levels / counts.sum())
        std = float(np.sqrt(counts @ (levels - mean) ** 2 / counts.sum()))
        means.append(round(mean, 6))
        stds.append(round(std, 6) or 1.0)
    return means, stds


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a packed dataset; raises InputError if it is missing or damaged."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        intact = manifest["checksum"] == _checksum(manifest)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; `python -m eqco prepare` makes it"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        intact = False
    if not intact:
        raise InputError(f"{path}: is damaged; delete it and run `python -m eqco prepare` again")
    return manifest


def load(folder: Path, split: str, count: int | None = None) -> "dict[str, torch.Tensor]":
    """Read a split, memory-mapped.

    Args:
        folder: of the packed dataset.
        split: ``train``, ``test`` or, of STL-10, ``unlabelled``.
        count: read only the first ``count`` images.

    Returns:
        ``images`` (M, C, H, W) uint8 and ``labels`` (M,) int64. Images packed as JPEG are instead
        the tensors that ``jpegs`` describes.

    Raises:
        InputError: if the file is missing, or is not the one that the manifest describes.
    """
    from safetensors.torch import load_file

    path = verify(folder, split)
    return {name: tensor[:count] for name, tensor in load_file(path).items()}


def images_of(tensors: "dict[str, torch.Tensor]", spec: Data) -> "torch.Tensor | Jpegs":
    """The images of a split: (M, C, H, W) uint8, or JPEGs.

    Args:
        tensors: returned by ``load``.
        spec: the dataset's section of a study.
    """
    if not isinstance(spec, JpegFolder):
        return tensors["images"]
    from eqco.data.jpegs import Jpegs

    return Jpegs(tensors, spec.size, spec.short_side)


def verify(folder: Path, split: str) -> Path:
    """The file of a split; raises InputError if it is not the one the manifest describes."""
    expected = read_manifest(folder)["splits"][split]
    path = folder / f"{split}.safetensors"
    if not path.is_file():
        raise InputError(f"{path}: is missing; `python -m eqco prepare` makes it")
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise InputError(f"{path}: is {size} bytes, the manifest says {expected['bytes']}")
    if sha256(path) != expected["sha256"]:
        raise InputError(f"{path}: is damaged: its sha256 is not the manifest's")
    return path


def dataset_hash(manifest: dict[str, Any]) -> str:
    """A dataset's hash: the sha256 of each of its splits."""
    order = [split for split in ("train", "test", "unlabelled") if split in manifest["splits"]]
    return ":".join(manifest["splits"][split]["sha256"] for split in order)


def section(folder: Path) -> Data:
    """The section that a study would have for a packed dataset, of whose files alone it is known.

    All training images are used; of JPEGs the inner 224 of 256 pixels, the sizes' defaults. Number
    of channels, and where the images came from, it does not say.
    """
    manifest = read_manifest(folder)
    name, size = manifest["name"], manifest["splits"]["test"]["shape"][-1]
    if size is None:
        return JpegFolder(kind="jpeg-folder", name=name, path="")
    return ImageFolder(kind="image-folder", name=name, path="", size=size)
