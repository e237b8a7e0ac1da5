"""Image folders, on disk or in an archive: ``train/<class>/*`` and ``test/<class>/*``."""

import lzma
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eqco.errors import InputError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"}


DAMAGED = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)
"""The errors of reading a damaged tar archive."""


@contextmanager
def unpacked(path: Path, key: str = "data.path") -> Iterator[Path]:
    """Yield the folder, or a temporary folder with the content of a tar archive.

    Args:
        path: the folder or the archive.
        key: of the study, that names it in messages.

    Raises:
        InputError: if it is neither, or damaged.
    """
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise InputError(f"{path}: {key}: is neither a folder nor a tar archive")
    with tempfile.TemporaryDirectory(prefix="eqco-") as folder:
        try:
            with tarfile.open(path) as archive:
                archive.extractall(folder, filter="data")
        except DAMAGED as error:
            raise InputError(f"{path}: {key}: cannot be unpacked: {error}") from None
        yield Path(folder)


def splits(folder: Path, per_class: int | None = None) -> dict[str, dict[str, list[Path]]]:
    """The sorted images of each class of ``train`` and of ``test``, which may be named ``val``.

    Args:
        folder: the folder that holds both splits.
        per_class: take only the first ``per_class`` images of each class.

    Returns:
        The files by class name, by split.

    Raises:
        InputError: if a split is missing or empty, or the two differ in their classes.
    """
    test = folder / "test"
    if not test.is_dir() and (folder / "val").is_dir():
        test = folder / "val"
    files = {"train": _by_class(folder / "train"), "test": _by_class(test)}
    if list(files["test"]) != list(files["train"]):
        different = sorted(set(files["test"]) ^ set(files["train"]))
        raise InputError(f"{folder}: train and test differ in their classes: {different}")
    return {
        split: {name: paths[:per_class] for name, paths in by_class.items()}
        for split, by_class in files.items()
    }


def _by_class(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise InputError(
            f"{folder}: is missing; an image folder holds train/<class>/*.jpg and test/"
        )
    by_class = {
        entry.name: sorted(f for f in entry.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
        for entry in sorted(folder.iterdir())
        if entry.is_dir()
    }
    if not by_class:
        raise InputError(f"{folder}: has no class folders")
    for name, files in by_class.items():
        if not files:
            allowed = " ".join(sorted(IMAGE_SUFFIXES))
            raise InputError(f"{folder / name}: is a class without an image ({allowed})")
    return by_class
