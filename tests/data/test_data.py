"""Packing and reading of the three kinds of data, and what happens to bad ones."""

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import idx
from PIL import Image
from sklearn.datasets import load_digits

from eqco.data import packed as data
from eqco.data import sources
from eqco.errors import InputError
from eqco.study.datasets import FashionMNIST, ImageFolder


def test_digits_are_sklearns(digits):
    train, test = data.load(digits, "train"), data.load(digits, "test")
    assert train["images"].shape == (1297, 1, 8, 8)
    assert test["images"].shape == (500, 1, 8, 8)
    assert train["images"].dtype == torch.uint8
    ours = torch.cat([train["images"], test["images"]]).flatten(1).numpy()
    theirs = np.rint(load_digits().data * (255 / 16))
    labels = torch.cat([train["labels"], test["labels"]]).numpy()
    assert sorted(map(tuple, np.c_[ours, labels])) == sorted(
        map(tuple, np.c_[theirs, load_digits().target].astype(int))
    )
    assert test["labels"].bincount().tolist() == pytest.approx([50] * 10, abs=2)


def test_the_manifest_has_the_statistics_of_the_training_images(digits):
    manifest = data.read_manifest(digits)
    images = data.load(digits, "train")["images"].double() / 255
    assert manifest["mean"] == pytest.approx([images.mean().item()], abs=1e-6)
    assert manifest["std"] == pytest.approx([images.std(unbiased=False).item()], abs=1e-6)


def test_statistics_of_a_constant_channel_can_be_divided_by():
    assert data.channel_statistics(np.eye(1, 256, 255)) == ([1.0], [1.0])


def test_packing_twice_gives_the_same_bytes(digits, tiny, tmp_path):
    sources.prepare(tiny.data, tmp_path)
    for file in digits.iterdir():
        assert file.read_bytes() == (tmp_path / file.name).read_bytes()


def test_only_the_first_images(digits):
    assert len(data.load(digits, "train", 10)["labels"]) == 10


@pytest.fixture
def packed(digits, tmp_path) -> Path:
    return shutil.copytree(digits, tmp_path / "digits")


def test_a_missing_file_is_named(packed):
    (packed / "train.safetensors").unlink()
    with pytest.raises(InputError, match=r"train\.safetensors: is missing"):
        data.load(packed, "train")


def test_a_truncated_file_is_named(packed):
    os.truncate(packed / "train.safetensors", 1000)
    with pytest.raises(InputError, match=r"train\.safetensors: is 1000 bytes, the manifest says"):
        data.load(packed, "train")


def test_a_flipped_bit_is_noticed(packed):
    content = bytearray((packed / "test.safetensors").read_bytes())
    content[-1] ^= 1
    (packed / "test.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"test\.safetensors: is damaged"):
        data.load(packed, "test")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "digits"}', "null"])
def test_a_damaged_manifest_is_named(packed, content):
    (packed / data.MANIFEST).write_text(content)
    with pytest.raises(InputError, match=r"MANIFEST\.json: is damaged"):
        data.load(packed, "train")


def test_a_missing_manifest_says_what_makes_it(tmp_path):
    with pytest.raises(InputError, match=r"MANIFEST\.json: cannot be read.*eqco prepare"):
        data.load(tmp_path, "train")


# Fashion-MNIST -------------------------------------------------------------------------------


@pytest.fixture
def fashion(tmp_path) -> Path:
    """The four files, small, as the original ones are laid out."""
    random = np.random.default_rng(0)
    folder = tmp_path / "fashion"
    folder.mkdir()
    for split, count in (("train", 60), ("t10k", 20)):
        images = random.integers(0, 256, (count, 28, 28))
        labels = np.arange(count) % 10
        with gzip.open(folder / f"{split}-images-idx3-ubyte.gz", "wb") as file:
            file.write(idx(images))
        with gzip.open(folder / f"{split}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(idx(labels))
    return folder


def test_fashion_mnist_from_its_files(fashion, tmp_path):
    sources.prepare(FashionMNIST(kind="fashion-mnist", root=str(fashion)), tmp_path / "out")
    train = data.load(tmp_path / "out", "train")
    raw = gzip.decompress((fashion / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    assert train["images"].shape == (60, 1, 28, 28)
    assert train["images"].numpy().tobytes() == raw
    assert train["labels"].tolist() == [i % 10 for i in range(60)]
    assert data.read_manifest(tmp_path / "out")["classes"][9] == "Ankle boot"


@pytest.mark.skipif(
    not sources.DEBIAN_FASHION_MNIST.is_dir(),
    reason="Debian's dataset-fashion-mnist is not installed",
)
def test_fashion_mnist_from_debians_package(tmp_path):
    sources.prepare(FashionMNIST(kind="fashion-mnist"), tmp_path)
    train, test = data.load(tmp_path, "train"), data.load(tmp_path, "test")
    assert train["images"].shape == (60_000, 1, 28, 28)
    assert test["labels"].bincount().tolist() == [1000] * 10
    # known mean and deviation of the dataset
    assert data.read_manifest(tmp_path)["mean"] == pytest.approx([0.2860], abs=1e-4)
    assert data.read_manifest(tmp_path)["std"] == pytest.approx([0.3530], abs=1e-4)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def garble(path: Path) -> None:
    path.write_bytes(b"not gzip")


def wrong_idx(path: Path) -> None:
    path.write_bytes(gzip.compress(b"not idx at all, but long enough for a header"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "train-images-idx3-ubyte.gz: is missing"),
        (truncate, "train-images-idx3-ubyte.gz: cannot be unpacked"),
        (garble, "train-images-idx3-ubyte.gz: cannot be unpacked"),
        (wrong_idx, "fashion: is not Fashion-MNIST"),
    ],
)
def test_damaged_fashion_mnist(fashion, tmp_path, damage, message):
    damage(fashion / "train-images-idx3-ubyte.gz")
    with pytest.raises(InputError, match=message):
        sources.prepare(FashionMNIST(kind="fashion-mnist", root=str(fashion)), tmp_path / "out")
    assert not (tmp_path / "out" / data.MANIFEST).exists()


# image folders -------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes, JPEG and PNG, of several sizes, one of them grey."""
    random = np.random.default_rng(0)
    for split, count in (("train", 5), ("test", 3)):
        for name in ("cat", "dog"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for i in range(count):
                shape = (20 + i, 16, 3) if i else (16, 16)
                image = Image.fromarray(random.integers(0, 256, shape).astype(np.uint8))
                suffix = "png" if i % 2 else "jpg"
                image.save(tmp_path / "images" / split / name / f"{i}.{suffix}")
    return tmp_path / "images"


def spec(path: Path, size: int = 16) -> ImageFolder:
    return ImageFolder(kind="image-folder", name="pets", path=str(path), size=size)


def test_an_image_folder(folder, tmp_path):
    sources.prepare(spec(folder), tmp_path / "out")
    train = data.load(tmp_path / "out", "train")
    assert train["images"].shape == (10, 3, 16, 16)
    assert train["labels"].tolist() == [0] * 5 + [1] * 5
    assert data.read_manifest(tmp_path / "out")["classes"] == ["cat", "dog"]
    # an image of the packed size is packed as it was decoded
    with Image.open(folder / "train" / "cat" / "0.jpg") as image:
        expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(train["images"][0].numpy(), expected)


def test_a_tar_archive_of_an_image_folder(folder, tmp_path):
    with tarfile.open(tmp_path / "pets.tar.xz", "w:xz") as archive:
        archive.add(folder / "train", "train")
        archive.add(folder / "test", "test")
    sources.prepare(spec(tmp_path / "pets.tar.xz"), tmp_path / "from-tar")
    sources.prepare(spec(folder), tmp_path / "from-folder")
    manifests = [
        json.loads((tmp_path / n / data.MANIFEST).read_text()) for n in ("from-tar", "from-folder")
    ]
    assert manifests[0] == manifests[1]


def no_test(folder: Path) -> None:
    shutil.rmtree(folder / "test")


def no_class(folder: Path) -> None:
    shutil.rmtree(folder / "test")
    (folder / "test").mkdir()


def empty_class(folder: Path) -> None:
    (folder / "train" / "bird").mkdir()


def other_classes(folder: Path) -> None:
    (folder / "test" / "dog").rename(folder / "test" / "bird")


def unreadable(folder: Path) -> None:
    (folder / "train" / "dog" / "0.jpg").write_text("not an image")


def cut_short(folder: Path) -> None:
    truncate(folder / "train" / "dog" / "1.png")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_test, r"images/test: is missing"),
        (no_class, r"images/test: has no class folders"),
        (empty_class, r"train/bird: is a class without an image"),
        (other_classes, r"train and test differ in their classes: \['bird', 'dog'\]"),
        (unreadable, r"train/dog/0\.jpg: is not a readable image"),
        (cut_short, r"train/dog/1\.png: is not a readable image"),
        (shutil.rmtree, r"images: data\.path: is neither a folder nor a tar archive"),
    ],
)
def test_bad_image_folders(folder, tmp_path, damage, message):
    damage(folder)
    with pytest.raises(InputError, match=message):
        sources.prepare(spec(folder), tmp_path / "out")
    assert not (tmp_path / "out" / data.MANIFEST).exists()


def test_an_archive_that_is_none(tmp_path):
    (tmp_path / "pets.tar").write_text("not a tar archive")
    with pytest.raises(InputError, match=r"pets\.tar: data\.path: cannot be unpacked"):
        sources.prepare(spec(tmp_path / "pets.tar"), tmp_path / "out")


def test_an_archive_cannot_write_outside_of_its_folder(tmp_path):
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        member = tarfile.TarInfo("../escaped.txt")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(InputError, match=r"evil\.tar: data\.path: cannot be unpacked"):
        sources.prepare(spec(tmp_path / "evil.tar"), tmp_path / "out")


STREAM = """
import sys
from pathlib import Path
import torch
from eqco.data.packed import load

def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))

before = held()
images = load(Path(sys.argv[1]), "train")["images"]
for _ in range(100):
    batch = images[torch.randint(len(images), (256,))]
print(held() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_dataset_larger_than_memory_streams(tmp_path):
    """100 MB of images are read through the file's pages, which the system may drop at any time."""
    images = np.random.default_rng(0).integers(0, 256, (33_000, 3, 32, 32), np.uint8)
    split = data.Packed(images, np.zeros(len(images), np.int64), ["a"])
    few = data.Packed(images[:10], split.labels[:10], ["a"])
    data.pack({"train": split, "test": few}, "random", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", STREAM, tmp_path], check=True, capture_output=True, text=True
    )
    assert float(done.stdout) < 50  # MB of its own
