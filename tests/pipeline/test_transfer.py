"""A study whose encoders are rated on a further dataset, and fine-tuned: images to table."""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from helpers import TINY, cells, copy_project, eqco, fails, idx, with_values
from sklearn.neighbors import KNeighborsClassifier
from tiny_grid import MADE, ran, snakemake

from eqco.commands.evaluate import evaluate_transfer
from eqco.data.packed import dataset_hash, load, read_manifest
from eqco.data.sources import FASHION_MNIST_FILES
from eqco.errors import InputError
from eqco.evaluation.features import frozen_backbone
from eqco.networks.encoder import Encoder
from eqco.store.cells import SavedEncoder, read_encoder, save_encoder

pytestmark = pytest.mark.usefixtures("fork_server")
K = 20
PLACES = ("", "@fashion-mnist")


def made_fashion_mnist(folder: Path) -> None:
    """Noise in the format of Fashion-MNIST, in which each class is a little lighter."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for split, count in (("train", 300), ("t10k", 100)):
        labels = np.arange(count) % 10
        images = random.normal(60, 25, (count, 28, 28)) + 12 * labels[:, None, None]
        for kind, array in (("images-idx3", images.clip(0, 255)), ("labels-idx1", labels)):
            with gzip.open(folder / f"{split}-{kind}-ubyte.gz", "wb") as file:
                file.write(idx(array))
    assert {path.name for path in folder.iterdir()} == set(FASHION_MNIST_FILES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, fork_server) -> Path:
    """A project after the run of the tiny study's first two cells, then of more evaluations."""
    folder = tmp_path_factory.mktemp("transfer")
    copy_project(folder)
    made_fashion_mnist(folder / "archive")
    values = with_values(
        yaml.safe_load(TINY.read_text()),
        {"grid.0.negatives": [1], "grid.0.margins": [0], "evaluate.knn.k": K},
    )
    study = folder / "tiny.yaml"
    study.write_text(yaml.safe_dump(values))
    each = {"pretrain": 2, "linear_eval": 2, "knn_eval": 2}
    assert ran(snakemake(folder)) == {"prepare": 1, **each, **MADE}
    on = [{"kind": "fashion-mnist", "root": "archive", "train_images": 300}]
    tune = {"epochs": 1, "batch": 64, "augment": {"flip": 0.5}}
    more = with_values(values, {"evaluate.on": on, "evaluate.finetune": tune})
    study.write_text(yaml.safe_dump(more))
    # what was trained and rated stays
    new = {"prepare_other": 1, "transfer_eval": 2, "finetune_eval": 2}
    assert ran(snakemake(folder)) == {**new, **MADE}
    return folder


def test_the_table_has_a_row_for_each_protocol_and_dataset(folder):
    table = pd.read_csv(folder / "results" / "tiny" / "table.csv", dtype=str)
    kinds = ("linear-lbfgs", "linear", "knn")
    own, other = ([kind + place for kind in kinds] for place in PLACES)
    assert table["protocol"].tolist() == [*own, "finetune", *other]
    assert set(table["seeds"]) == {"2"}
    assert ran(snakemake(folder)) == {}


def test_the_accuracy_is_that_of_scikit_learn_on_features_of_images_as_the_encoders_own(folder):
    """Normalised by the mean and deviation of the digits, on which it was trained."""
    (path,) = (folder / "results" / "tiny" / "cells").glob("**/seed~0/encoder.safetensors")
    backbone = frozen_backbone(read_encoder(path), channels=1)
    own = read_manifest(folder / "data" / "digits")
    mean, std = own["mean"][0], own["std"][0]
    splits = {name: load(folder / "data" / "fashion-mnist", name) for name in ("train", "test")}
    x, test = (backbone((s["images"] / 255 - mean) / std).numpy() for s in splits.values())
    vote = KNeighborsClassifier(K, weights=lambda d: np.exp((1 - d) / 0.1), metric="cosine")
    vote.fit(x, splits["train"]["labels"])
    expected = 100 * vote.score(test, splits["test"]["labels"])
    result = json.loads((path.parent / "transfer.json").read_text())
    assert result["accuracy"]["knn@fashion-mnist"] == pytest.approx(expected, abs=1.01)
    assert 15 < expected < 100  # a tenth by chance
    assert result["correct"].keys() == result["accuracy"].keys()
    assert "root" not in result["settings"]["on"][0]


def test_a_table_is_made_again_from_what_is_kept(folder, tmp_path):
    before = (folder / "results" / "tiny" / "table.csv").read_bytes()
    done = eqco("keep", "tiny.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    results = tmp_path / "tiny"
    results.mkdir()
    kept = (folder / "results" / "tiny" / "cells.jsonl").read_text()
    (folder / "results" / "tiny" / "cells.jsonl").unlink()
    (results / "cells.jsonl").write_text(kept)
    done = eqco("table", "tiny.yaml", "--results", results, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (results / "table.csv").read_bytes() == before
    # an archive from before evaluate.on does not stand in for the cells
    old = [json.loads(line) for line in kept.splitlines()]
    for line in old:
        del line["transfer.json"]
    (results / "cells.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    assert "cannot be read" in fails("table", "tiny.yaml", "--results", results, cwd=folder)


def test_a_vit_takes_images_of_its_own_size_alone(folder, study_with, tmp_path):
    pytest.importorskip("timm", reason="the extra timm is not installed")
    network = {"backbone": "timm/vit_tiny_patch16_224", "projector": [8], "projector_norm": "none"}
    photos = {"kind": "image-folder", "name": "digits", "path": "x", "size": 16}
    on = [{"kind": "image-folder", "name": "others", "path": "x", "size": 32}]
    study = study_with({"data": photos, "network": network, "evaluate.on": on})
    config = study.resolve(next(iter(cells(study).values())))
    weights = Encoder(study.network, 3, 16).state_dict()
    checksum = dataset_hash(read_manifest(folder / "data" / "digits"))
    save_encoder(tmp_path / "encoder", SavedEncoder(config, checksum, weights))
    with pytest.raises(InputError, match=r"others: images of 32 pixels: .* those of 16 alone"):
        evaluate_transfer(
            *(study, tmp_path / "encoder", folder / "data" / "digits", tmp_path / "out", tmp_path),
            device=torch.device("cpu"),
        )


def test_another_dataset_than_one_of_the_study(folder):
    message = fails("prepare", "tiny.yaml", "--out", "data/x", "--on", "x", cwd=folder)
    assert "--on: x: allowed: fashion-mnist" in message
    (cell,) = (folder / "results" / "tiny" / "cells").glob("**/seed~0")
    encoder = ("--encoder", cell / "encoder.safetensors", "--out", "out.json")
    data = ("--data", "data/fashion-mnist")
    message = fails("transfer-eval", "tiny.yaml", *encoder, *data, cwd=folder)
    assert "is another dataset than the encoder was trained on" in message
    assert not (folder / "out.json").exists()
