"""Sources of datasets, built-in, public or an image folder, each packed by ``prepare``."""

import gzip
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from eqco.data import archives, folders, jpeg_packing, parquet
from eqco.data.decoding import counted, fitted
from eqco.data.packed import MANIFEST, Packed, pack, write_manifest
from eqco.errors import InputError
from eqco.study.datasets import (
    Data,
    Digits,
    FashionMNIST,
    ImageFolder,
    JpegFolder,
    ParquetFiles,
    Torchvision,
)

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_FILES = [
    f"{split}-{kind}-ubyte.gz"
    for split in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
]


def prepare(spec: Data, out: Path) -> None:
    """Pack a dataset into the folder ``out``.

    Raises:
        InputError: if the source is missing or damaged; ``out`` then gets no manifest.
    """
    match spec:
        case Digits():
            pack(_digits(), spec.name, out)
        case FashionMNIST():
            pack(_fashion_mnist(spec.root, out), spec.name, out)
        case ImageFolder():
            pack(_image_folder(spec), spec.name, out)
        case ParquetFiles():
            pack(parquet.read(spec), spec.name, out)
        case JpegFolder():
            _pack_jpegs(spec, out)
        case Torchvision():
            pack(_public(spec, out), spec.name, out)


def _pack_jpegs(spec: JpegFolder, out: Path) -> None:
    (out / MANIFEST).unlink(missing_ok=True)
    splits, classes = jpeg_packing.pack(spec, out)
    shapes = {name: [split.images, 3, None, None] for name, split in splits.items()}  # sizes vary
    unreadable = {name: split.unreadable for name, split in splits.items()}
    write_manifest(
        out, spec.name, classes, splits["train"].histogram, shapes, unreadable=unreadable
    )
    for files in unreadable.values():
        for file in files:
            print(f"{file}: is not a readable image, and left out")
    count = sum(map(len, unreadable.values()))
    print(f"{sum(split.images for split in splits.values()):,} images packed, {count} unreadable")


def _digits() -> dict[str, Packed]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # grey levels 0 … 16 -> 0 … 255
    images = np.rint(digits.images[:, None] * (255 / 16)).astype(np.uint8)  # (1797, 1, 8, 8)
    labels = digits.target.astype(np.int64)
    classes = [str(name) for name in digits.target_names]
    # a fixed, stratified split: the last rows of scikit-learn's file come from other writers
    train, test = train_test_split(
        np.arange(len(labels)), test_size=500, random_state=0, stratify=labels
    )
    return {
        split: Packed(images[rows], labels[rows], classes)
        for split, rows in (("train", train), ("test", test))
    }


def _fashion_mnist(root: str | None, out: Path) -> dict[str, Packed]:
    from torchvision.datasets import FashionMNIST as Original

    if root is None and not DEBIAN_FASHION_MNIST.is_dir():
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=out) as folder:
            return _from_torchvision(Original(folder, train=True, download=True), folder)
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
            return _from_torchvision(Original(folder, train=True), folder)
        except (ValueError, AssertionError, RuntimeError) as error:
            raise InputError(f"{source}: is not Fashion-MNIST: {error}") from None


def _from_torchvision(train: Any, folder: str) -> dict[str, Packed]:
    splits = {"train": train, "test": type(train)(folder, train=False)}
    return {
        split: Packed(dataset.data[:, None].numpy(), dataset.targets.numpy(), dataset.classes)
        for split, dataset in splits.items()
    }


def _public(spec: Torchvision, out: Path) -> dict[str, Packed]:
    with archives.found(spec, out) as files:
        match spec.dataset:
            case "cifar10":
                splits = archives.cifar10(files[0])
            case "cifar100":
                splits = archives.cifar100(files[0])
            case "stl10":
                splits = archives.stl10(files[0])
            case "svhn":
                splits = {"train": archives.svhn(files[0]), "test": archives.svhn(files[1])}
            case "imagenette":
                return _imagenette(files[0], spec)
    return {
        split: archives.first_of_each_class(packed, spec.images_per_class)
        for split, packed in splits.items()
    }


def _imagenette(archive: Path, spec: Torchvision) -> dict[str, Packed]:
    """The image folder in Imagenette's archive; messages name the archive, not where it lay."""
    with folders.unpacked(archive, "data.root") as folder:
        try:
            return _packed_folder(folder / archive.stem, spec.size, spec.images_per_class)
        except InputError as error:
            message = str(error).replace(f"{folder}/", "")
            raise InputError(f"{archive}: {message}") from None


def _image_folder(spec: ImageFolder) -> dict[str, Packed]:
    with folders.unpacked(Path(spec.path)) as folder:
        return _packed_folder(folder, spec.size, spec.images_per_class)


def _packed_folder(folder: Path, size: int, per_class: int | None) -> dict[str, Packed]:
    return {
        split: _decode(by_class, size, split)
        for split, by_class in folders.splits(folder, per_class).items()
    }


def _decode(by_class: dict[str, list[Path]], size: int, split: str) -> Packed:
    files = [path for paths in by_class.values() for path in paths]
    images = np.empty((len(files), 3, size, size), np.uint8)
    with ThreadPoolExecutor() as pool:
        decoded = pool.map(lambda path: fitted(path, size, str(path)), files)
        for i, image in enumerate(counted(decoded, len(files), split)):
            images[i] = image
    labels = np.repeat(np.arange(len(by_class)), [len(paths) for paths in by_class.values()])
    return Packed(images, labels.astype(np.int64), list(by_class))
