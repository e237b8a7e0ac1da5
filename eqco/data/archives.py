"""Public datasets as their authors publish them: CIFAR-10, CIFAR-100, STL-10, SVHN, Imagenette.

CIFAR's and STL-10's binary archives and SVHN's Matlab files hold bytes alone: nothing is unpickled.
"""

import gzip
import http.client
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from eqco.data.folders import DAMAGED
from eqco.data.packed import Packed
from eqco.errors import InputError
from eqco.study.datasets import Torchvision

SIDE = 32  # pixels of CIFAR's and SVHN's images
PIXELS = 3 * SIDE * SIDE  # bytes of an image


@dataclass(frozen=True)
class File:
    """A file that the authors publish: its address and its md5 sum."""

    url: str
    md5: str

    @property
    def name(self) -> str:
        """The file's name, in ``data.root`` too."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Source:
    """The page of a dataset's authors, the licence that they state, and their files."""

    page: str
    licence: str
    files: tuple[File, ...]


_CIFAR = "https://www.cs.toronto.edu/~kriz"
_SVHN = "http://ufldl.stanford.edu/housenumbers"
_FASTAI = "https://s3.amazonaws.com/fast-ai-imageclas"
SOURCES = {
    "cifar10": Source(
        f"{_CIFAR}/cifar.html",
        "not stated",
        (File(f"{_CIFAR}/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),),
    ),
    "cifar100": Source(
        f"{_CIFAR}/cifar.html",
        "not stated",
        (File(f"{_CIFAR}/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),),
    ),
    "stl10": Source(
        "https://cs.stanford.edu/~acoates/stl10/",
        "not stated; the images are ImageNet's",
        (
            File(
                "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
                "91f7769df0f17e558f3565bffb0c7dfb",
            ),
        ),
    ),
    "svhn": Source(
        f"{_SVHN}/",
        "for non-commercial use only",
        (
            File(f"{_SVHN}/train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
            File(f"{_SVHN}/test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
        ),
    ),
    "imagenette": Source(
        "https://github.com/fastai/imagenette",
        "Apache-2.0; the images are ImageNet's, for non-commercial research",
        (
            File(f"{_FASTAI}/imagenette2-160.tgz", "e793b78cc4c9e9a4ccc0c1155377a412"),
            File(f"{_FASTAI}/imagenette2-320.tgz", "3df6f0d01a2c9592104656642f5e78a3"),
        ),
    ),
}


def files_of(spec: Torchvision) -> tuple[File, ...]:
    """The files that a dataset is read from: all, of Imagenette the smallest that is enough."""
    files = SOURCES[spec.dataset].files
    if spec.dataset != "imagenette":
        return files
    return files[:1] if spec.size <= 160 else files[1:]


@contextmanager
def found(spec: Torchvision, out: Path) -> Iterator[list[Path]]:
    """Yield the files of a dataset: those in ``data.root``, else downloads, which are then removed.

    A download has the authors' checksum. Files in ``data.root`` are read as they are.

    Args:
        spec: the dataset's section of a study.
        out: the folder for the downloads.

    Raises:
        InputError: if a file is missing, or cannot be downloaded as its authors published it.
    """
    files, licence = files_of(spec), SOURCES[spec.dataset].licence
    if spec.root is not None:
        paths = [Path(spec.root, file.name) for file in files]
        for path, file in zip(paths, files, strict=True):
            if not path.is_file():
                raise InputError(
                    f"{path}: is missing; data.root must hold {file.name}, from {file.url} "
                    f"(licence: {licence})"
                )
        yield paths
        return
    from torchvision.datasets.utils import download_url

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=out) as folder:
        for file in files:
            try:
                download_url(file.url, folder, md5=file.md5)
            except (OSError, RuntimeError, http.client.HTTPException) as error:
                raise InputError(
                    f"{file.url}: cannot be downloaded with the md5 {file.md5}: {error}; else put "
                    f"{file.name} into a folder and name that as data.root (licence: {licence})"
                ) from None
        yield [Path(folder, file.name) for file in files]


def first_of_each_class(packed: Packed, count: int | None) -> Packed:
    """The first so many images of each class, in their order; all without a count."""
    if count is None:
        return packed
    if -1 in packed.labels:  # as many as of all classes, in their order
        count *= len(packed.classes)
    kept = [np.flatnonzero(packed.labels == label)[:count] for label in np.unique(packed.labels)]
    rows = np.sort(np.concatenate(kept))
    return Packed(packed.images[rows], packed.labels[rows], packed.classes)


def cifar10(archive: Path) -> dict[str, Packed]:
    """Both splits of CIFAR-10's binary archive.

    Images are (M, 3, 32, 32) uint8, in the order of the archive's batches.

    Raises:
        InputError: if the archive is damaged or is not of that format.
    """
    train = [f"data_batch_{i}.bin" for i in range(1, 6)]
    files = {"train": train, "test": ["test_batch.bin"]}
    return _cifar(archive, "cifar-10-batches-bin", "batches.meta.txt", files, (10,))


def cifar100(archive: Path) -> dict[str, Packed]:
    """Both splits of CIFAR-100's binary archive, with its 100 fine labels.

    Raises:
        InputError: if the archive is damaged or is not of that format.
    """
    files = {"train": ["train.bin"], "test": ["test.bin"]}
    return _cifar(archive, "cifar-100-binary", "fine_label_names.txt", files, (20, 100))


def _cifar(
    archive: Path, folder: str, names: str, files: dict[str, list[str]], labels: tuple[int, ...]
) -> dict[str, Packed]:
    """The splits of records of a byte a label, the last the one that is used, and an image."""
    of_splits = [f"{folder}/{name}" for split in files.values() for name in split]
    contents = _members(archive, [f"{folder}/{names}", *of_splits])
    classes = contents[f"{folder}/{names}"].decode("ascii", "replace").split()
    if len(classes) != labels[-1]:
        raise InputError(f"{archive}: {names} has {len(classes)} classes, not {labels[-1]}")
    splits = {}
    for split, parts in files.items():
        records = np.concatenate(
            [_records(archive, name, contents[f"{folder}/{name}"], labels) for name in parts]
        )
        images = np.ascontiguousarray(records[:, len(labels) :]).reshape(-1, 3, SIDE, SIDE)
        splits[split] = Packed(images, records[:, len(labels) - 1].astype(np.int64), classes)
    return splits


def _whole(file: IO[bytes], member: tarfile.TarInfo) -> bytes:
    return file.read()


def _members(
    archive: Path, names: list[str], read: Callable[[IO[bytes], tarfile.TarInfo], Any] = _whole
) -> dict[str, Any]:
    """The content of some files of a tar.gz archive, read in memory, with gzip's check of all."""
    contents = {}
    try:
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r:") as members:
                for member in members:
                    if member.name in names and member.isfile():
                        file = members.extractfile(member)
                        assert file is not None  # it is no folder and no link
                        contents[member.name] = read(file, member)
            while stream.read(2**20):  # gzip's checksum stands at the end
                pass
    except DAMAGED as error:
        raise InputError(f"{archive}: cannot be unpacked: {error}") from None
    for name in names:
        if name not in contents:
            raise InputError(f"{archive}: has no {name}")
    return contents


STL10 = 96  # pixels of its images


def stl10(archive: Path) -> dict[str, Packed]:
    """The splits ``train``, ``test`` and ``unlabelled`` of STL-10's binary archive.

    Images are (M, 3, 96, 96) uint8, in the archive's order; a label is -1 where there is none.

    Raises:
        InputError: if the archive is damaged or is not of that format.
    """
    folder, length = "stl10_binary", 3 * STL10 * STL10
    names = [f"{split}_{part}.bin" for split in ("train", "test") for part in ("X", "y")]
    names = ["class_names.txt", *names, "unlabeled_X.bin"]

    def read(file: IO[bytes], member: tarfile.TarInfo) -> bytes | np.ndarray:
        if not member.name.endswith("_X.bin"):
            return file.read()
        count, rest = divmod(member.size, length)
        if rest or not count:
            name = member.name.removeprefix(f"{folder}/")
            raise InputError(
                f"{archive}: {name} has {member.size} bytes, not images of {length} bytes"
            )
        images = np.empty((count, 3, STL10, STL10), np.uint8)
        for i in range(count):  # one by one: all of them are 2.7 GB, which is not held twice
            columns = np.frombuffer(file.read(length), np.uint8).reshape(3, STL10, STL10)
            images[i] = columns.transpose(0, 2, 1)  # published column by column
        return images

    contents = _members(archive, [f"{folder}/{name}" for name in names], read)
    classes = contents[f"{folder}/class_names.txt"].decode("ascii", "replace").split()
    splits = {}
    for split in ("train", "test"):
        images = contents[f"{folder}/{split}_X.bin"]
        labels = np.frombuffer(contents[f"{folder}/{split}_y.bin"], np.uint8)
        if len(labels) != len(images):
            raise InputError(
                f"{archive}: {split}_y.bin has {len(labels)} labels, of {len(images)} images"
            )
        _check_labels(f"{archive}: {split}_y.bin", labels, 1, len(classes))
        splits[split] = Packed(images, labels.astype(np.int64) - 1, classes)
    images = contents[f"{folder}/unlabeled_X.bin"]
    splits["unlabelled"] = Packed(images, np.full(len(images), -1, np.int64), classes)
    return splits


def _records(archive: Path, name: str, content: bytes, labels: tuple[int, ...]) -> np.ndarray:
    """The records of a file (M, labels + 3072) uint8, with labels in their ranges."""
    length = len(labels) + PIXELS
    if not content or len(content) % length:
        raise InputError(
            f"{archive}: {name} has {len(content)} bytes, not records of {length} bytes"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, length)
    for column, count in enumerate(labels):
        _check_labels(f"{archive}: {name}", records[:, column], 0, count - 1)
    return records


def _check_labels(file: str, labels: np.ndarray, least: int, most: int) -> None:
    """Refuse labels outside a range."""
    wrong = np.flatnonzero((labels < least) | (labels > most))
    if len(wrong):
        raise InputError(
            f"{file}: image {wrong[0]} has the label {labels[wrong[0]]}, not {least} to {most}"
        )


def svhn(file: Path) -> Packed:
    """A split of SVHN's cropped digits, images (M, 3, 32, 32) uint8; its label 10 is the digit 0.

    Raises:
        InputError: if the file is damaged or is not of that format.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(file, variable_names=("X", "y"))
    except Exception as error:  # the reader of Matlab's format has no error of its own for damage
        raise InputError(f"{file}: cannot be read: {' '.join(str(error).split())}") from None
    images, labels = content.get("X"), content.get("y")
    for name, array in (("X", images), ("y", labels)):
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
            raise InputError(f"{file}: {name} is missing, or is no array of uint8")
    if images.shape[:3] != (SIDE, SIDE, 3) or images.shape[3:] != (labels.size,) or not labels.size:
        raise InputError(
            f"{file}: X has the shape {images.shape}, not (32, 32, 3, M) with {labels.size} labels"
        )
    labels = labels.ravel()
    _check_labels(str(file), labels, 1, 10)
    images = np.ascontiguousarray(images.transpose(3, 2, 0, 1))
    return Packed(images, labels.astype(np.int64) % 10, [str(digit) for digit in range(10)])
