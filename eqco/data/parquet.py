"""Parquet files with a column of images, as hubs of datasets publish them.

A file belongs to the split that its path names first: ``data/train-00000-of-00002.parquet``,
``default/validation/0000.parquet``. Only pyarrow reads them, the extra ``parquet``.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from eqco.data.decoding import counted, fitted
from eqco.data.packed import Packed
from eqco.errors import InputError
from eqco.runtime.extras import extra
from eqco.study.datasets import ParquetFiles

SPLIT = re.compile(r"(?<![a-z])(train|test|validation|val)(?![a-z])")
AT_ONCE = 1024  # images that are decoded before they are stored


def read(spec: ParquetFiles) -> dict[str, Packed]:
    """Both splits, images (M, 3, S, S) uint8; ``validation`` is the test split without another.

    Raises:
        InputError: if pyarrow, a split or a column is missing, a file or an image is damaged, or a
            label is no class.
    """
    _pyarrow(".parquet")
    files = _files(Path(spec.path))
    columns = {split: _labels(paths, spec) for split, paths in files.items()}
    classes, labels = _classes(columns, files, spec)
    return {
        split: Packed(*_images(split, files[split], labels[split], spec), classes)
        for split in files
    }


def _pyarrow(module: str = "") -> Any:
    return extra(f"pyarrow{module}", "parquet", "data.kind: parquet")


def _files(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        if named := SPLIT.search(str(path.relative_to(folder))):
            found.setdefault(named[1], []).append(path)
    test = next((name for name in ("test", "validation", "val") if name in found), "test")
    for split in ("train", test):
        if split not in found:
            raise InputError(f"{folder}: data.path: has no file {split}*.parquet")
    return {"train": found["train"], "test": found[test]}


def _column(path: Path, column: str, key: str) -> Any:
    """A file, if it has the column."""
    try:
        file = _pyarrow(".parquet").ParquetFile(path)
    except (_pyarrow().ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read: {_line(error)}") from None
    if column not in file.schema_arrow.names:
        names = ", ".join(file.schema_arrow.names)
        raise InputError(f"{path}: data.{key}: {column}: must be one of its columns: {names}")
    return file


def _labels(paths: list[Path], spec: ParquetFiles) -> list[Any]:
    labels = []
    for path in paths:
        file = _column(path, spec.label, "label")
        labels += [label for rows in _rows(path, file, spec.label) for label in rows]
    return labels


def _rows(path: Path, file: Any, column: str) -> Iterator[list[Any]]:
    """The values of a column, a part of the file after the other."""
    try:
        for batch in file.iter_batches(AT_ONCE, columns=[column]):
            yield batch.column(0).to_pylist()
    except (_pyarrow().ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read: {_line(error)}") from None


def _classes(
    columns: dict[str, list[Any]], files: dict[str, list[Path]], spec: ParquetFiles
) -> tuple[list[str], dict[str, np.ndarray]]:
    """The classes' names, and each split's labels (M,) int64: -1 for an image that is left out."""
    names = _named(_column(files["train"][0], spec.label, "label").schema_arrow, spec.label)
    known = list(range(len(names))) if names else sorted(set(columns["train"]), key=str)
    if not names and all(isinstance(label, int) for label in known):
        known.sort()
    number = {label: i for i, label in enumerate(known)}
    for split, labels in columns.items():
        if wrong := [label for label in dict.fromkeys(labels) if label not in number]:
            allowed = f"must be one of {len(known)} classes"
            raise InputError(f"{spec.path}: data.label: {wrong[0]!r} of {split}: {allowed}")
    numbers = {
        split: np.array([number[label] for label in column], np.int64)
        for split, column in columns.items()
    }
    if spec.images_per_class:
        for of_split in numbers.values():
            for i in range(len(known)):
                of_split[np.flatnonzero(of_split == i)[spec.images_per_class :]] = -1
    return names or [str(label) for label in known], numbers


def _named(schema: Any, column: str) -> list[str]:
    """The classes' names that Hugging Face's libraries write beside a column of numbers."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        return [str(name) for name in about["info"]["features"][column]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _images(
    split: str, paths: list[Path], labels: np.ndarray, spec: ParquetFiles
) -> tuple[np.ndarray, np.ndarray]:
    """The images that have a label, and these labels."""
    kept = labels >= 0
    images = np.empty((kept.sum(), 3, spec.size, spec.size), np.uint8)
    with ThreadPoolExecutor() as pool:

        def decoded() -> Iterator[np.ndarray]:
            seen = 0
            for path in paths:
                file, first = _column(path, spec.image, "image"), seen
                for rows in _rows(path, file, spec.image):
                    wanted = [
                        (row, f"{path}: row {seen - first + i}")
                        for i, row in enumerate(rows)
                        if kept[seen + i]
                    ]
                    seen += len(rows)
                    yield from pool.map(partial(_image, spec.size), wanted)

        for i, image in enumerate(counted(decoded(), len(images), split)):
            images[i] = image
    return images, labels[kept]


def _image(size: int, one: tuple[Any, str]) -> np.ndarray:
    value, name = one
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise InputError(f"{name}: holds no bytes of an image")
    return fitted(BytesIO(content), size, name)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
