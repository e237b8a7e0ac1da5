"""Public datasets from small archives of the authors' format, whole, damaged and of another."""

import os
import random
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import public
import pytest
import torchvision.datasets
import yaml
from helpers import ROOT, eqco, fails, image_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from public import CIFAR10, CIFAR100, Split, random_split
from scipy.io import savemat

from eqco.data import archives, sources
from eqco.data import packed as data
from eqco.data.archives import SOURCES
from eqco.errors import InputError
from eqco.study.datasets import SIDES, Torchvision

TRAIN, TEST = random_split(40, 10), random_split(20, 10, seed=1)
MAKE = {"cifar10": public.cifar10, "cifar100": public.cifar100, "svhn": public.svhn}


def spec(name: str, root: Path | None, **more) -> Torchvision:
    values = {"kind": "torchvision", "name": name, "root": root and str(root), **more}
    return Torchvision.model_validate(values)


def equal(folder: Path, split: str, expected: Split) -> bool:
    found = data.load(folder, split)
    images, labels = expected
    return np.array_equal(found["images"], images) and found["labels"].tolist() == labels.tolist()


def refused(spec: Torchvision, out: Path) -> str:
    """The one line of a refusal that leaves no manifest."""
    with pytest.raises(InputError) as caught:
        sources.prepare(spec, out)
    assert "\n" not in str(caught.value)
    assert not (out / data.MANIFEST).exists()
    return str(caught.value)


@pytest.mark.parametrize("name", MAKE)
def test_packed_is_what_was_put_in(name, tmp_path):
    MAKE[name](tmp_path, TRAIN, TEST)
    sources.prepare(spec(name, tmp_path), tmp_path / "out")
    assert equal(tmp_path / "out", "train", TRAIN)
    assert equal(tmp_path / "out", "test", TEST)
    manifest = data.read_manifest(tmp_path / "out")
    assert manifest["name"] == name
    first = {"cifar10": "class-0", "cifar100": "fine-0", "svhn": "0"}[name]
    assert (manifest["classes"][0], len(manifest["classes"])) == (
        first,
        100 if name == "cifar100" else 10,
    )


@given(st.integers(5, 30), st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_arrays_survive_cifars_format(tmp_path, train, test, seed):
    noise = np.random.default_rng(seed)
    splits = [
        (noise.integers(0, 256, (count, 3, 32, 32), np.uint8), noise.integers(0, 100, count))
        for count in (train, test)
    ]
    found = archives.cifar100(public.cifar100(tmp_path, *splits))
    for packed, (images, labels) in zip((found["train"], found["test"]), splits, strict=True):
        assert np.array_equal(packed.images, images)
        assert np.array_equal(packed.labels, labels)
    tens = [(images, labels % 10) for images, labels in splits]
    packed = archives.cifar10(public.cifar10(tmp_path, *tens))["train"]
    assert np.array_equal(packed.images, tens[0][0])
    assert np.array_equal(packed.labels, tens[0][1])


def test_svhn_is_as_torchvision_reads_it(tmp_path, monkeypatch):
    public.svhn(tmp_path, TRAIN, TEST)
    monkeypatch.setattr(torchvision.datasets.SVHN, "_check_integrity", lambda self: True)
    theirs = torchvision.datasets.SVHN(str(tmp_path), split="train")
    ours = archives.svhn(tmp_path / "train_32x32.mat")
    assert np.array_equal(ours.images, theirs.data)
    assert np.array_equal(ours.labels, theirs.labels)


@pytest.mark.parametrize("name", MAKE)
def test_the_first_images_of_each_class_have_a_folder_of_their_own(name, tmp_path):
    MAKE[name](tmp_path, TRAIN, TEST)
    part = spec(name, tmp_path, images_per_class=1)
    assert part.name == f"{name}-first-1"
    sources.prepare(part, tmp_path / "out")
    assert equal(tmp_path / "out", "train", (TRAIN[0][:10], TRAIN[1][:10]))
    assert equal(tmp_path / "out", "test", (TEST[0][:10], TEST[1][:10]))
    assert data.read_manifest(tmp_path / "out")["name"] == part.name


@pytest.fixture
def imagenette(tmp_path) -> Path:
    """A folder with Imagenette's smaller archive, of ten classes and few images."""
    folder = image_folder(tmp_path / "imagenette2-160", classes=10, train=3, test=2)
    (folder / "test").rename(folder / "val")
    for image in folder.rglob("*.jpg"):
        image.rename(image.with_suffix(".JPEG"))
    with tarfile.open(tmp_path / "imagenette2-160.tgz", "w:gz") as archive:
        archive.add(folder, folder.name)
    return tmp_path


def test_imagenette_is_its_image_folder(imagenette, tmp_path):
    sources.prepare(spec("imagenette", imagenette, size=32), tmp_path / "out")
    folder = {"kind": "image-folder", "name": "x", "path": str(imagenette / "imagenette2-160")}
    whole = sources.ImageFolder.model_validate({**folder, "size": 32})
    sources.prepare(whole, tmp_path / "folder")
    for split in ("train", "test"):
        file = f"{split}.safetensors"
        ours, theirs = (tmp_path / place / file for place in ("out", "folder"))
        assert ours.read_bytes() == theirs.read_bytes()
    assert data.load(tmp_path / "out", "test")["images"].shape == (20, 3, 32, 32)


def test_more_than_160_pixels_are_of_the_larger_imagenette(imagenette, tmp_path):
    assert spec("imagenette", imagenette).size == 160
    large = spec("imagenette", imagenette, size=224)
    assert large.name == "imagenette-224"
    assert "imagenette2-320.tgz: is missing" in refused(large, tmp_path / "out")


def test_what_is_wrong_in_imagenette_is_named_by_its_place_in_the_archive(tmp_path):
    public.tar(tmp_path / "imagenette2-160.tgz", {"other/a.txt": b""})
    message = refused(spec("imagenette", tmp_path), tmp_path / "out")
    assert message.startswith(f"{tmp_path}/imagenette2-160.tgz: imagenette2-160/train: is missing")
    os.truncate(tmp_path / "imagenette2-160.tgz", 60)
    message = refused(spec("imagenette", tmp_path), tmp_path / "out")
    assert "imagenette2-160.tgz: data.root: cannot be unpacked" in message


# bad archives --------------------------------------------------------------------------------


def without(name: str) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.pop(name) and None


def short(name: str, by: int = 1) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({name: members[name][:-by]})


def label(name: str, at: int, value: int) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        content = bytearray(members[name])
        content[at] = value
        members[name] = bytes(content)

    return change


def empty(name: str) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({name: b""})


BAD = {
    "cifar10": [
        (without(f"{CIFAR10}/data_batch_3.bin"), f"has no {CIFAR10}/data_batch_3.bin"),
        (without(f"{CIFAR10}/test_batch.bin"), f"has no {CIFAR10}/test_batch.bin"),
        (without(f"{CIFAR10}/batches.meta.txt"), f"has no {CIFAR10}/batches.meta.txt"),
        (short(f"{CIFAR10}/batches.meta.txt", 9), "batches.meta.txt has 9 classes, not 10"),
        (
            short(f"{CIFAR10}/data_batch_2.bin"),
            "data_batch_2.bin has 24583 bytes, not records of 3073 bytes",
        ),
        (empty(f"{CIFAR10}/test_batch.bin"), "test_batch.bin has 0 bytes, not records of 3073"),
        (
            label(f"{CIFAR10}/data_batch_5.bin", 3073, 10),
            "data_batch_5.bin: image 1 has the label 10, not 0 to 9",
        ),
    ],
    "cifar100": [
        (without(f"{CIFAR100}/train.bin"), f"has no {CIFAR100}/train.bin"),
        (short(f"{CIFAR100}/test.bin"), "test.bin has 61479 bytes, not records of 3074 bytes"),
        (label(f"{CIFAR100}/test.bin", 1, 100), "image 0 has the label 100, not 0 to 99"),
        (label(f"{CIFAR100}/train.bin", 0, 20), "image 0 has the label 20, not 0 to 19"),
    ],
}


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [(name, damage, message) for name, cases in BAD.items() for damage, message in cases],
)
def test_an_archive_of_another_structure(name, damage, message, tmp_path):
    members = getattr(public, f"{name}_members")(TRAIN, TEST)
    damage(members)
    file = public.tar(tmp_path / f"{name.replace('r1', 'r-1')}-binary.tar.gz", members)
    line = refused(spec(name, tmp_path), tmp_path / "out")
    assert line.startswith(f"{file}: ")
    assert message in line


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_truncated_archive(share, tmp_path):
    file = public.cifar10(tmp_path, TRAIN, TEST)
    os.truncate(file, int(file.stat().st_size * share))
    assert refused(spec("cifar10", tmp_path), tmp_path / "out").startswith(f"{file}: ")


def test_a_flipped_bit_anywhere_is_noticed(tmp_path):
    """Gzip's checksum, behind the last file, or tar refuses it; gzip's own notes have none."""
    file, chance = public.cifar10(tmp_path, TRAIN, TEST), random.Random(0)
    whole = file.read_bytes()
    start = whole.index(b"\0", 10) + 1  # the header holds the time and the file's name
    for at in (*chance.choices(range(start, len(whole)), k=60), len(whole) - 5):
        content = bytearray(whole)
        content[at] ^= 1 << chance.randrange(8)
        file.write_bytes(content)
        assert refused(spec("cifar10", tmp_path), tmp_path / "out").startswith(f"{file}: ")


def test_a_link_in_an_archive_is_no_file(tmp_path):
    members = public.cifar10_members(TRAIN, TEST)
    del members[f"{CIFAR10}/test_batch.bin"]
    file = public.tar(tmp_path / "cifar-10-binary.tar", members)
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo(f"{CIFAR10}/test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        with tarfile.open(file) as whole:
            for member in whole:
                archive.addfile(member, whole.extractfile(member))
    message = refused(spec("cifar10", tmp_path), tmp_path / "out")
    assert message.endswith(f"has no {CIFAR10}/test_batch.bin")


def garbage(path: Path) -> None:
    path.write_bytes(b"not a Matlab file, but long enough for the header of one" * 10)


def wrong_label(path: Path) -> None:
    savemat(path, {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[1], [11]], np.uint8)})


def wrong_shape(path: Path) -> None:
    savemat(path, {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones((3, 1), np.uint8)})


def no_labels(path: Path) -> None:
    savemat(path, {"X": np.zeros((32, 32, 3, 2), np.uint8)})


def floats(path: Path) -> None:
    savemat(path, {"X": np.zeros((32, 32, 3, 2)), "y": np.ones((2, 1), np.uint8)})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: os.truncate(path, path.stat().st_size // 2), "cannot be read"),
        (lambda path: os.truncate(path, 0), "cannot be read"),
        (garbage, "cannot be read"),
        (wrong_label, "image 1 has the label 11, not 1 to 10"),
        (wrong_shape, r"X has the shape (32, 32, 3, 2), not (32, 32, 3, M) with 3 labels"),
        (no_labels, "y is missing, or is no array of uint8"),
        (floats, "X is missing, or is no array of uint8"),
    ],
)
def test_a_bad_file_of_svhn(damage, message, tmp_path):
    public.svhn(tmp_path, TRAIN, TEST)
    damage(tmp_path / "test_32x32.mat")
    line = refused(spec("svhn", tmp_path), tmp_path / "out")
    assert line.startswith(f"{tmp_path}/test_32x32.mat: {message}")


# where the files come from -------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_a_missing_file_says_what_to_put_where(name, tmp_path):
    message = refused(spec(name, tmp_path / "none"), tmp_path / "out")
    file, licence = SOURCES[name].files[0], SOURCES[name].licence
    place = f"{tmp_path}/none/{file.name}: is missing; data.root must hold {file.name}"
    assert message == f"{place}, from {file.url} (licence: {licence})"


@pytest.fixture
def publish(tmp_path, monkeypatch) -> Iterator[Callable[[str], None]]:
    """Let CIFAR-10 be a small archive that this machine serves, with any md5 sum."""
    public.cifar10(tmp_path / "web", TRAIN, TEST)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()

        def make(md5: str) -> None:
            address = f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz"
            source = archives.Source("", "not stated", (archives.File(address, md5),))
            monkeypatch.setitem(SOURCES, "cifar10", source)

        yield make
        server.shutdown()


def test_a_download_is_packed_and_removed(publish, tmp_path):
    publish(torchvision.datasets.utils.calculate_md5(tmp_path / "web" / "cifar-10-binary.tar.gz"))
    sources.prepare(spec("cifar10", None), tmp_path / "out")
    assert equal(tmp_path / "out", "train", TRAIN)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {data.MANIFEST, "train.safetensors", "test.safetensors"}


def test_another_file_than_the_published_one_is_refused(publish, tmp_path):
    publish("0" * 32)
    message = refused(spec("cifar10", None), tmp_path / "out")
    assert f"cannot be downloaded with the md5 {'0' * 32}: " in message
    assert message.endswith("name that as data.root (licence: not stated)")
    assert not list((tmp_path / "out").iterdir())


def test_an_address_without_the_file(publish, tmp_path):
    (tmp_path / "web" / "cifar-10-binary.tar.gz").unlink()
    publish("0" * 32)
    message = refused(spec("cifar10", None), tmp_path / "out")
    assert "cifar-10-binary.tar.gz: cannot be downloaded" in message
    assert "404" in message


def test_the_published_table_is_what_the_code_downloads():
    table = pd.read_csv(ROOT / "published" / "datasets.csv", dtype=str, keep_default_na=False)
    rows = table[table["name"].isin(SOURCES)]
    listed = set(rows[["name", "source", "licence", "url", "md5"]].itertuples(index=False))
    assert {tuple(row) for row in listed} == {
        (name, source.page, source.licence, file.url, file.md5)
        for name, source in SOURCES.items()
        for file in source.files
    }
    assert set(SIDES) == set(SOURCES)
    fashion = table[table["name"] == "fashion-mnist"]
    theirs = dict(torchvision.datasets.FashionMNIST.resources)
    assert dict(zip(fashion["file"], fashion["md5"], strict=True)) == theirs
    assert table["licence"].ne("").all()


@pytest.mark.parametrize("name", ["svhn", "imagenette", "stl10"])
def test_checksums_are_torchvisions(name):
    known = torchvision.datasets.SVHN.split_list.values()
    if name == "imagenette":
        known = torchvision.datasets.Imagenette._ARCHIVES.values()
    if name == "stl10":
        known = [(torchvision.datasets.STL10.url, torchvision.datasets.STL10.tgz_md5)]
    sums = {entry[0]: entry[-1] for entry in known}
    for file in SOURCES[name].files:
        assert sums[file.url] == file.md5


def test_a_study_with_a_root_is_prepared(tmp_path, tiny_values, fork_server):
    public.cifar10(tmp_path, TRAIN, TEST)
    study, out = tmp_path / "study.yaml", tmp_path / "out"
    values = {"kind": "torchvision", "name": "cifar10", "root": str(tmp_path)}
    study.write_text(yaml.safe_dump({**tiny_values, "data": values}))
    assert eqco("prepare", study, "--out", out).returncode == 0
    assert equal(out, "train", TRAIN)
    (tmp_path / "cifar-10-binary.tar.gz").unlink()
    message = fails("prepare", study, "--out", out)
    assert "cifar-10-binary.tar.gz: is missing; data.root must hold" in message
