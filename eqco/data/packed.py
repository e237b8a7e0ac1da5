"""Datasets, packed once: uint8 images, one safetensors file a split, memory-mapped when read.

``prepare`` writes ``train.safetensors``, ``test.safetensors`` and, last, ``MANIFEST.json``, which
says what they hold and their checksums; ``load`` refuses files that do not match it.
"""

import gzip
import hashlib
import json
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eqco.data import folders
from eqco.errors import InputError
from eqco.runtime.files import sha256, write
from eqco.study.study import Data, Digits, FashionMNIST, ImageFolder, JpegFolder, canonical

if TYPE_CHECKING:
    import torch

    from eqco.data.jpegs import Jpegs

MANIFEST = "MANIFEST.json"
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_FILES = [
    f"{split}-{kind}-ubyte.gz"
    for split in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
]


@dataclass(frozen=True)
class Packed:
    """One split: images (M, C, H, W) uint8, labels (M,) int64, the classes' names."""

    images: np.ndarray
    labels: np.ndarray
    classes: list[str]


def prepare(spec: Data, out: Path) -> None:
    """Pack a dataset into the folder ``out``.

    Raises:
        InputError: for a missing or damaged source; ``out`` then gets no manifest.
    """
    match spec:
        case Digits():
            pack(_digits(), spec.name, out)
        case FashionMNIST():
            pack(_fashion_mnist(spec.root, out), spec.name, out)
        case ImageFolder():
            pack(_image_folder(spec), spec.name, out)
        case JpegFolder():
            _pack_jpegs(spec, out)


def pack(splits: dict[str, Packed], name: str, out: Path) -> None:
    """Write the splits ``train`` and ``test`` of a dataset, and its manifest, into a folder."""
    from safetensors.numpy import save

    (out / MANIFEST).unlink(missing_ok=True)
    shapes = {}
    for split, packed in splits.items():
        write(
            out / f"{split}.safetensors", save({"images": packed.images, "labels": packed.labels})
        )
        shapes[split] = list(packed.images.shape)
    images = splits["train"].images
    levels = [np.bincount(images[:, c].ravel(), minlength=256) for c in range(images.shape[1])]
    _write_manifest(out, name, splits["train"].classes, np.stack(levels), shapes)


def _pack_jpegs(spec: JpegFolder, out: Path) -> None:
    from eqco.data import jpegs

    (out / MANIFEST).unlink(missing_ok=True)
    splits, classes = jpegs.pack(spec, out)
    shapes = {name: [split.images, 3, None, None] for name, split in splits.items()}  # they vary
    unreadable = {name: split.unreadable for name, split in splits.items()}
    _write_manifest(
        out, spec.name, classes, splits["train"].histogram, shapes, unreadable=unreadable
    )
    for files in unreadable.values():
        for file in files:
            print(f"{file}: is not a readable image, and left out")
    count = sum(map(len, unreadable.values()))
    print(f"{sum(split.images for split in splits.values()):,} images packed, {count} unreadable")


def _write_manifest(
    out: Path,
    name: str,
    classes: list[str],
    histogram: np.ndarray,
    shapes: dict[str, list[int | None]],
    **more: Any,
) -> None:
    """Describe the splits in a folder; ``histogram`` (C, 256) is of the training images' levels."""
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
    """Of everything in a manifest but the checksum itself."""
    rest = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(canonical(rest).encode()).hexdigest()


def channel_statistics(histogram: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, in [0, 1], from counts of its levels (C, 256).

    Exact, and nothing larger than the images is made. A constant channel gets the standard
    deviation 1, to divide by.
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
    """The manifest of a packed dataset; raises InputError where there is none."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        whole = manifest["checksum"] == _checksum(manifest)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; `python -m eqco prepare` makes it"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise InputError(f"{path}: is damaged; delete it and run `python -m eqco prepare` again")
    return manifest


def load(folder: Path, split: str, count: int | None = None) -> "dict[str, torch.Tensor]":
    """Read a split, memory-mapped.

    Args:
        folder: what ``prepare`` wrote.
        split: ``train`` or ``test``.
        count: only the first so many images.

    Returns:
        ``images`` (M, C, H, W) uint8 and ``labels`` (M,) int64; of a folder kept as JPEG what
        ``jpegs`` says.

    Raises:
        InputError: when the file is missing, or is not the one that the manifest describes.
    """
    from safetensors.torch import load_file

    path = verify(folder, split)
    return {name: tensor[:count] for name, tensor in load_file(path).items()}


def images_of(tensors: "dict[str, torch.Tensor]", spec: dict[str, Any]) -> "torch.Tensor | Jpegs":
    """The images of a split that was loaded: (M, C, H, W) uint8, or JPEGs.

    Args:
        tensors: of ``load``.
        spec: the values of a study's ``data``.
    """
    if "content" not in tensors:
        return tensors["images"]
    from eqco.data.jpegs import Jpegs

    return Jpegs(tensors, spec["size"], spec["short_side"])


def verify(folder: Path, split: str) -> Path:
    """The file of a split; raises InputError where it is not the one the manifest describes."""
    expected = read_manifest(folder)["splits"][split]
    path = folder / f"{split}.safetensors"
    if not path.is_file():
        raise InputError(f"{path}: is missing; `python -m eqco prepare` makes it")
    found = path.stat().st_size
    if found != expected["bytes"]:
        raise InputError(f"{path}: is {found} bytes, the manifest says {expected['bytes']}")
    if sha256(path) != expected["sha256"]:
        raise InputError(f"{path}: is damaged: its sha256 is not the manifest's")
    return path


def dataset_hash(manifest: dict[str, Any]) -> str:
    """One hash of a dataset: the sha256 of its training split, then of its test split."""
    return ":".join(manifest["splits"][split]["sha256"] for split in ("train", "test"))


def _digits() -> dict[str, Packed]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # grey levels 0 … 16 -> 0 … 255
    images = np.rint(digits.images[:, None] * (255 / 16)).astype(np.uint8)  # (1797, 1, 8, 8)
    labels = digits.target.astype(np.int64)
    classes = [str(name) for name in digits.target_names]
    # a fixed split with every class in proportion: the file's last rows come from other writers
    train, test = train_test_split(
        np.arange(len(labels)), test_size=500, random_state=0, stratify=labels
    )
    return {
        split: Packed(images[rows], labels[rows], classes)
        for split, rows in (("train", train), ("test", test))
    }


def _fashion_mnist(root: str | None, out: Path) -> dict[str, Packed]:
    from torchvision.datasets import FashionMNIST as Torchvision

    if root is None and not DEBIAN_FASHION_MNIST.is_dir():
        with tempfile.TemporaryDirectory(prefix=".download-", dir=_made(out)) as folder:
            return _from_torchvision(Torchvision(folder, train=True, download=True), folder)
    source = DEBIAN_FASHION_MNIST if root is None else Path(root)
    with tempfile.TemporaryDirectory(prefix="eqco-") as folder:
        raw = Path(folder, "FashionMNIST", "raw")
        raw.mkdir(parents=True)
        for name in FASHION_MNIST_FILES:
            try:
                with gzip.open(source / name) as packed, (raw / name[:-3]).open("wb") as plain:
                    shutil.copyfileobj(packed, plain)
            except FileNotFoundError:
                raise InputError(
                    f"{source / name}: is missing; data.root must hold "
                    f"{', '.join(FASHION_MNIST_FILES)}"
                ) from None
            except (EOFError, gzip.BadGzipFile, OSError) as error:
                raise InputError(f"{source / name}: cannot be unpacked: {error}") from None
        try:
            return _from_torchvision(Torchvision(folder, train=True), folder)
        except (ValueError, AssertionError, RuntimeError) as error:
            raise InputError(f"{source}: is not Fashion-MNIST: {error}") from None


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _from_torchvision(train: Any, folder: str) -> dict[str, Packed]:
    splits = {"train": train, "test": type(train)(folder, train=False)}
    return {
        split: Packed(dataset.data[:, None].numpy(), dataset.targets.numpy(), dataset.classes)
        for split, dataset in splits.items()
    }


def _image_folder(spec: ImageFolder) -> dict[str, Packed]:
    with folders.unpacked(Path(spec.path)) as folder:
        return {
            split: _decode(by_class, spec.size, split)
            for split, by_class in folders.splits(folder, spec.images_per_class).items()
        }


def _decode(by_class: dict[str, list[Path]], size: int, split: str) -> Packed:
    from PIL import Image, ImageOps
    from rich.console import Console
    from rich.progress import track

    def decode(path: Path) -> np.ndarray:
        try:
            with Image.open(path) as image:
                fitted = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{path}: is not a readable image: {error}") from None
        return np.asarray(fitted)  # (size, size, 3)

    files = [path for paths in by_class.values() for path in paths]
    images = np.empty((len(files), 3, size, size), np.uint8)
    with ThreadPoolExecutor() as pool:
        decoded = track(
            pool.map(decode, files), f"{split} images", len(files), console=Console(stderr=True)
        )
        for i, image in enumerate(decoded):
            images[i] = image.transpose(2, 0, 1)
    labels = np.repeat(np.arange(len(by_class)), [len(paths) for paths in by_class.values()])
    return Packed(images, labels.astype(np.int64), list(by_class))
