"""STL-10: encoders are pretrained on images without labels, and evaluated on those with."""

import tarfile
from pathlib import Path

import numpy as np
import public
import pytest
import torch
import torchvision.datasets
import yaml
from helpers import eqco, fails, with_values

from eqco.data import archives, sources
from eqco.data.packed import MANIFEST, dataset_hash, load, read_manifest
from eqco.data.views import Views
from eqco.errors import InputError
from eqco.evaluation.features import features_of
from eqco.study.datasets import Torchvision
from eqco.study.recipe import Augment

TRAIN, TEST = public.random_split(30, 10, side=96), public.random_split(20, 10, seed=1, side=96)
UNLABELLED = public.random_split(24, 10, seed=2, side=96)[0]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stl10")
    public.stl10(folder, TRAIN, TEST, UNLABELLED)
    return folder


def spec(root: Path, **more) -> Torchvision:
    values = {"kind": "torchvision", "name": "stl10", "root": str(root), **more}
    return Torchvision.model_validate(values)


@pytest.fixture(scope="module")
def packed(root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "stl10"
    sources.prepare(spec(root), folder)
    return folder


def test_it_is_as_torchvision_reads_it(root, packed, tmp_path, monkeypatch):
    with tarfile.open(root / "stl10_binary.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.setattr(torchvision.datasets.STL10, "_check_integrity", lambda self: True)
    for split, theirs in (("train", "train"), ("test", "test"), ("unlabelled", "unlabeled")):
        original = torchvision.datasets.STL10(str(tmp_path), split=theirs)
        ours = load(packed, split)
        assert np.array_equal(ours["images"], original.data)
        assert np.array_equal(ours["labels"], original.labels)
    assert read_manifest(packed)["classes"] == original.classes


def test_what_is_pretrained_on_gives_the_statistics_and_is_part_of_the_hash(root, packed, tmp_path):
    manifest = read_manifest(packed)
    channels = UNLABELLED.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    assert manifest["mean"] == pytest.approx(channels.mean(axis=1), abs=1e-6)
    assert manifest["std"] == pytest.approx(channels.std(axis=1), abs=1e-6)
    public.stl10(tmp_path, TRAIN, TEST, UNLABELLED[:-1])
    sources.prepare(spec(tmp_path), tmp_path / "out")
    other = read_manifest(tmp_path / "out")
    assert dataset_hash(other).split(":")[:2] == dataset_hash(manifest).split(":")[:2]
    assert dataset_hash(other) != dataset_hash(manifest)


def test_so_many_of_each_class_are_as_many_without_labels(root, tmp_path):
    part = spec(root, images_per_class=2)
    sources.prepare(part, tmp_path / "out")
    assert part.name == "stl10-first-2"
    assert np.array_equal(load(tmp_path / "out", "train")["images"], TRAIN[0][:20])
    assert np.array_equal(load(tmp_path / "out", "unlabelled")["images"], UNLABELLED[:20])


def test_views_to_pretrain_are_of_all_images_without_labels(root, packed):
    """``data.validation`` takes its images out of those with labels."""
    with_validation = spec(root, validation=10)
    settings = {"batch": 4, "views": 1, "epochs": 1, "seed": 0, "device": torch.device("cpu")}
    views = [
        Views(packed, with_validation, Augment(), split=split, **settings)
        for split in (with_validation.pretrained_on, "train")
    ]
    assert [len(one.rows) for one in views] == [24, 20]
    assert np.array_equal(views[0].images, UNLABELLED)
    assert set(views[0].labels.tolist()) == {-1}


def test_features_are_of_the_images_with_labels(root, packed):
    features = features_of(
        torch.nn.Flatten(), spec(root, validation=10), packed, device=torch.device("cpu")
    )
    assert [len(x) for x in (features.train, features.validation, features.test)] == [20, 10, 20]
    assert features.test_labels.tolist() == TEST[1].tolist()


@pytest.mark.usefixtures("fork_server")
def test_a_study_goes_from_the_archive_to_its_accuracies(root, tiny_values, tmp_path):
    changes = {"data": spec(root).model_dump(mode="json"), "pretrain.epochs": 1}
    changes |= {"pretrain.batch": 12, "grid.0.negatives": [1]}
    study, cell = tmp_path / "study.yaml", "method~simo/negatives~1/margin~eqco/seed~0"
    study.write_text(yaml.safe_dump(with_values(tiny_values, changes)))
    data, out = tmp_path / "data", tmp_path / "out"
    assert eqco("prepare", study, "--out", data).returncode == 0
    done = eqco("pretrain", study, "--cell", cell, "--data", data, "--out", out)
    assert done.returncode == 0, done.stderr
    encoder = out / "encoder.safetensors"
    done = eqco("knn-eval", study, "--encoder", encoder, "--data", data, "--out", out / "knn.json")
    assert done.returncode == 0, done.stderr
    assert (out / "knn.json").exists()


def test_a_classifier_beside_the_encoder_needs_labels(root, tiny_values, tmp_path):
    changes = {"data": spec(root).model_dump(mode="json"), "pretrain.online": 0.3}
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump(with_values(tiny_values, changes)))
    message = fails("prepare", study, "--out", tmp_path / "out")
    assert "pretrain.online: 0.3: stl10 is pretrained on images without labels" in message


LENGTH = 3 * 96 * 96
BAD = {
    "unlabeled_X.bin": (b"", "unlabeled_X.bin has 0 bytes, not images of 27648 bytes"),
    "train_X.bin": (bytes(LENGTH + 1), "train_X.bin has 27649 bytes, not images of 27648 bytes"),
    "test_y.bin": (bytes([1, 2]), "test_y.bin has 2 labels, of 20 images"),
    "train_y.bin": (bytes(30), "train_y.bin: image 0 has the label 0, not 1 to 10"),
    "class_names.txt": (None, "has no stl10_binary/class_names.txt"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_archive_of_another_structure(root, tmp_path, name):
    content, message = BAD[name]
    with tarfile.open(root / "stl10_binary.tar.gz") as archive:
        members = {one.name: archive.extractfile(one).read() for one in archive}
    members[f"stl10_binary/{name}"] = content
    given = {name: content for name, content in members.items() if content is not None}
    file = public.tar(tmp_path / "stl10_binary.tar.gz", given)
    with pytest.raises(InputError) as caught:
        sources.prepare(spec(tmp_path), tmp_path / "out")
    assert str(caught.value) == f"{file}: {message}"
    assert not (tmp_path / "out" / MANIFEST).exists()


@pytest.mark.parametrize("share", [0.1, 0.6, 0.999])
def test_a_truncated_archive(root, tmp_path, share):
    whole = (root / "stl10_binary.tar.gz").read_bytes()
    file = tmp_path / "stl10_binary.tar.gz"
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match="cannot be unpacked"):
        archives.stl10(file)
