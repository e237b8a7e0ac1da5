"""Image folders, on disk or in an archive: ``train/<class>/*`` and ``test/<class>/*``."""

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eqco.errors import InputError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"}


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The folder itself, or a temporary one with the content of a tar archive."""
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise InputError(f"{path}: data.path: is neither a folder nor a tar archive")
    with tempfile.TemporaryDirectory(prefix="eqco-") as folder:
        try:
            with tarfile.open(path) as archive:
                archive.extractall(folder, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InputError(f"{path}: data.path: cannot be unpacked: {error}") from None
        yield Path(folder)


def splits(folder: Path, per_class: int | None = None) -> dict[str, dict[str, list[Path]]]:
    """The sorted images of each class, of ``train`` and of ``test``, which may be called ``val``.

    Args:
        folder: that holds both.
        per_class: only the first so many of each class.

    Raises:
        InputError: when a split is missing or empty, or the two differ in their classes.
    """
    test = folder / "test"
    if not test.is_dir() and (folder / "val").is_dir():
        test = folder / "val"
    found = {"train": _by_class(folder / "train"), "test": _by_class(test)}
    if list(found["test"]) != list(found["train"]):
        different = sorted(set(found["test"]) ^ set(found["train"]))
        raise InputError(f"{folder}: train and test differ in their classes: {different}")
    return {
        split: {name: files[:per_class] for name, files in by_class.items()}
        for split, by_class in found.items()
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
