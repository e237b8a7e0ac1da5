"""Small archives in the formats of public datasets, and the arrays that are in them."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.io import savemat

Split = tuple[np.ndarray, np.ndarray]  # images (M, 3, S, S) uint8, labels (M,)

CIFAR10 = "cifar-10-batches-bin"
CIFAR100 = "cifar-100-binary"


def random_split(count: int, classes: int, seed: int = 0, side: int = 32) -> Split:
    """Noise, a little brighter with each class, and labels that go round the classes."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = (
        random.integers(0, 200, (count, 3, side, side))
        + (50 * labels // classes)[:, None, None, None]
    )
    return images.astype(np.uint8), labels.astype(np.int64)


def records(split: Split, *more: np.ndarray) -> bytes:
    """A byte for each label, then the image; ``more`` are the labels before the last."""
    images, labels = split
    columns = [*(column[:, None] for column in more), labels[:, None], images.reshape(-1, 3072)]
    return np.concatenate(columns, axis=1).astype(np.uint8).tobytes()


def tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def names(classes: Sequence[str]) -> bytes:
    return "".join(f"{name}\n" for name in classes).encode() + b"\n"


def cifar10_members(train: Split, test: Split) -> dict[str, bytes]:
    """The members of CIFAR-10's binary archive: five batches, the test batch, the names."""
    batches = np.array_split(np.arange(len(train[1])), 5)
    return {
        f"{CIFAR10}/batches.meta.txt": names([f"class-{i}" for i in range(10)]),
        **{
            f"{CIFAR10}/data_batch_{i}.bin": records((train[0][rows], train[1][rows]))
            for i, rows in enumerate(batches, 1)
        },
        f"{CIFAR10}/readme.html": b"<html>",
        f"{CIFAR10}/test_batch.bin": records(test),
    }


def cifar100_members(train: Split, test: Split) -> dict[str, bytes]:
    """The members of CIFAR-100's binary archive; five fine labels have one coarse label."""
    return {
        f"{CIFAR100}/coarse_label_names.txt": names([f"coarse-{i}" for i in range(20)]),
        f"{CIFAR100}/fine_label_names.txt": names([f"fine-{i}" for i in range(100)]),
        f"{CIFAR100}/test.bin": records(test, test[1] // 5),
        f"{CIFAR100}/train.bin": records(train, train[1] // 5),
    }


def cifar10(root: Path, train: Split, test: Split) -> Path:
    return tar(root / "cifar-10-binary.tar.gz", cifar10_members(train, test))


def cifar100(root: Path, train: Split, test: Split) -> Path:
    return tar(root / "cifar-100-binary.tar.gz", cifar100_members(train, test))


def stl10(root: Path, train: Split, test: Split, unlabelled: np.ndarray) -> Path:
    """STL-10's binary archive; its images are published column by column."""
    lines = names([f"class-{i}" for i in range(10)])
    members = {"class_names.txt": lines[:-1], "fold_indices.txt": b""}
    for split, (images, labels) in (("train", train), ("test", test)):
        members[f"{split}_X.bin"] = images.transpose(0, 1, 3, 2).tobytes()
        members[f"{split}_y.bin"] = (labels + 1).astype(np.uint8).tobytes()
    members["unlabeled_X.bin"] = unlabelled.transpose(0, 1, 3, 2).tobytes()
    named = {f"stl10_binary/{name}": content for name, content in members.items()}
    return tar(root / "stl10_binary.tar.gz", named)


def svhn(root: Path, train: Split, test: Split) -> None:
    """Both files of SVHN's cropped digits, with 10 for the digit 0."""
    for name, (images, labels) in (("train", train), ("test", test)):
        labels = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        content = {"X": images.transpose(2, 3, 1, 0), "y": labels}
        savemat(root / f"{name}_32x32.mat", content, do_compression=True)
