"""Parquet files with images: packed as the same images in folders are, and told when damaged."""

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import image_folder
from PIL import Image

from eqco.data import sources
from eqco.data.packed import MANIFEST, load, read_manifest
from eqco.errors import InputError
from eqco.study.datasets import ImageFolder, ParquetFiles

SIZE = 16
CLASSES = [f"class-{i}" for i in range(3)]


def spec(path: Path, **more: Any) -> ParquetFiles:
    return ParquetFiles(**{"kind": "parquet", "name": "x", "path": str(path), "size": SIZE} | more)


def write(path: Path, images: Sequence[Any], labels: Sequence[Any], **more: Any) -> None:
    """A file in parts of four rows."""
    table = pa.table({"image": images, "label": labels})
    if names := more.get("names"):
        about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=4)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return image_folder(tmp_path_factory.mktemp("photos"), classes=3, train=6, test=4)


def read(folder: Path) -> tuple[list[bytes], list[int]]:
    """The files of a split, class by class, and their labels."""
    files = [
        (file.read_bytes(), i)
        for i, of_class in enumerate(sorted(folder.iterdir()))
        for file in sorted(of_class.iterdir())
    ]
    images, labels = zip(*files, strict=True)
    return list(images), list(labels)


@pytest.fixture
def hub(photos, tmp_path) -> Path:
    """The images as a hub has them: two files to train on, structs of bytes and path."""
    folder = tmp_path / "hub"
    images, labels = read(photos / "train")
    structs = [{"bytes": image, "path": f"{i}.jpg"} for i, image in enumerate(images)]
    for part, rows in enumerate((slice(None, 10), slice(10, None))):
        file = folder / "data" / f"train-0000{part}-of-00002.parquet"
        write(file, structs[rows], labels[rows], names=CLASSES)
    images, labels = read(photos / "test")
    structs = [{"bytes": image, "path": None} for image in images]
    write(folder / "data" / "test-00000-of-00001.parquet", structs, labels, names=CLASSES)
    return folder


def test_packed_is_what_the_same_images_in_folders_are(photos, hub, tmp_path):
    sources.prepare(spec(hub), tmp_path / "out")
    folder = ImageFolder(kind="image-folder", name="x", path=str(photos), size=SIZE)
    sources.prepare(folder, tmp_path / "expected")
    for split in ("train", "test"):
        found, expected = (load(tmp_path / place, split) for place in ("out", "expected"))
        assert np.array_equal(found["images"], expected["images"])
        assert np.array_equal(found["labels"], expected["labels"])
    assert read_manifest(tmp_path / "out")["classes"] == CLASSES


@pytest.mark.parametrize("names", [["b", "a", "c"], [30, 4, 5]], ids=["words", "numbers"])
def test_bytes_alone_labels_of_any_kind_and_a_validation_split(photos, tmp_path, names):
    for split, folder in (("train", "train"), ("test", "validation")):
        images, labels = read(photos / split)
        write(tmp_path / "hub" / folder / "0000.parquet", images, [names[i] for i in labels])
    sources.prepare(spec(tmp_path / "hub"), tmp_path / "out")
    classes = sorted(names)
    assert read_manifest(tmp_path / "out")["classes"] == [str(name) for name in classes]
    found = load(tmp_path / "out", "test")["labels"].tolist()
    assert [classes[i] for i in found] == [names[i] for i in read(photos / "test")[1]]


def test_the_first_images_of_each_class(photos, hub, tmp_path):
    sources.prepare(spec(hub, images_per_class=2), tmp_path / "out")
    folder = ImageFolder(
        kind="image-folder", name="x", path=str(photos), size=SIZE, images_per_class=2
    )
    sources.prepare(folder, tmp_path / "expected")
    found, expected = (load(tmp_path / place, "train") for place in ("out", "expected"))
    assert np.array_equal(found["images"], expected["images"])
    assert found["labels"].tolist() == expected["labels"].tolist() == [0, 0, 1, 1, 2, 2]


def refused(asked: ParquetFiles, out: Path) -> str:
    with pytest.raises(InputError) as caught:
        sources.prepare(asked, out)
    assert "\n" not in str(caught.value)
    assert not (out / MANIFEST).exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"image": "img"}, "data.image: img: must be one of its columns: image, label"),
        ({"label": "fine"}, "data.label: fine: must be one of its columns: image, label"),
    ],
)
def test_a_column_that_is_not_there(hub, tmp_path, more, message):
    line = refused(spec(hub, **more), tmp_path / "out")
    assert line.startswith(f"{hub}/data/train-00000-of-00002.parquet: ")
    assert line.endswith(message)


def png(level: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((SIZE, SIZE), level, np.uint8)).save(content, "png")
    return content.getvalue()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ([png(0), png(9)[:40]], [0, 1], "test.parquet: row 1: is not a readable image: "),
        ([png(0), b"no"], [0, 1], "row 1: is not a readable image: its format is unknown"),
        ([png(0), None], [0, 1], "test.parquet: row 1: holds no bytes of an image"),
        ([png(0), png(1)], [0, 2], "data.label: 2 of test: must be one of 2 classes"),
        ([png(0), png(1)], [0, -1], "data.label: -1 of test: must be one of 2 classes"),
        ([png(0), png(1)], [0, None], "data.label: None of test: must be one of 2 classes"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path, images, labels, message):
    write(tmp_path / "train.parquet", [png(0), png(1)], [0, 1])
    write(tmp_path / "test.parquet", images, labels)
    assert message in refused(spec(tmp_path), tmp_path / "out")


def test_files_that_are_missing_or_damaged(tmp_path):
    assert refused(spec(tmp_path), tmp_path / "out").endswith("has no file train*.parquet")
    write(tmp_path / "train.parquet", [png(0)] * 9, [0] * 9)
    assert refused(spec(tmp_path), tmp_path / "out").endswith("has no file test*.parquet")
    file = tmp_path / "test.parquet"
    whole = (tmp_path / "train.parquet").read_bytes()
    for damaged in (whole[:100], whole[:20] + bytes(60) + whole[80:], b""):
        file.write_bytes(damaged)
        assert str(file) in refused(spec(tmp_path), tmp_path / "out")


def test_without_pyarrow_the_extra_is_named(hub, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    line = refused(spec(hub), tmp_path / "out")
    assert line.startswith("data.kind: parquet: pyarrow.parquet is not installed; ")
    assert 'pip install "eqco[parquet]"' in line
