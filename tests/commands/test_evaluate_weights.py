"""``eqco evaluate``: foreign weights get the accuracies of plain torch and scikit-learn."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from helpers import TINY, eqco, fails, random_encoder, with_values
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from torchvision import models

from eqco.commands.steps import knn_eval, linear_eval
from eqco.data.packed import Packed, dataset_hash, load, pack, read_manifest
from eqco.runtime.files import sha256
from eqco.store.cells import SavedEncoder, read_encoder, save_encoder
from eqco.study.load import load_study

pytestmark = pytest.mark.usefixtures("fork_server")
PHOTOS = {"kind": "image-folder", "name": "photos", "path": "photos", "size": 16}
SETTINGS = {
    "evaluate.linear_lbfgs": {"l2": 1e-2},
    "evaluate.linear": {"lr": 0.1, "epochs": 20, "drops": [10], "batch": 64},
    "evaluate.knn": {"k": 20},
}
IMAGENET = {"--mean": "0.485,0.456,0.406", "--std": "0.229,0.224,0.225"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A packed dataset: noise, in which each of four classes has a colour, which is hard to see."""
    random = np.random.default_rng(0)
    colours = random.normal(size=(4, 3, 1, 1)) * 25
    splits = {}
    for split, count in (("train", 240), ("test", 120)):
        labels = random.integers(0, 4, count)
        images = random.normal(128, 40, (count, 3, 16, 16)) + colours[labels]
        images += random.normal(0, 15, (count, 3, 1, 1))
        pixels = images.clip(0, 255).astype(np.uint8)
        splits[split] = Packed(pixels, labels.astype(np.int64), list("abcd"))
    folder = tmp_path_factory.mktemp("photos")
    pack(splits, "photos", folder)
    return folder


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory) -> Path:
    """A checkpoint as MoCo's, of a random network whose batch norm has seen images."""
    torch.manual_seed(0)
    query, key = models.resnet18(num_classes=5), models.resnet18(num_classes=5)
    query(torch.rand(32, 3, 32, 32))
    names: dict[str, Tensor] = {}
    for prefix, network in (("module.encoder_q.", query), ("module.encoder_k.", key)):
        names |= {prefix + name: tensor for name, tensor in network.state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "moco.pth.tar"
    torch.save({"epoch": 1, "state_dict": names}, path)
    return path


def in_plain_torch(
    checkpoint: Path, photos: Path, mean: list[float], std: list[float]
) -> dict[str, float]:
    """The accuracies of each protocol with the settings of SETTINGS, in some twenty lines."""
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    start = "module.encoder_q."
    model = models.resnet18(num_classes=5)
    model.load_state_dict({n[len(start) :]: t for n, t in state.items() if n.startswith(start)})
    model.fc = nn.Identity()
    splits = [load(photos, split) for split in ("train", "test")]
    (y, z), images = (s["labels"] for s in splits), [s["images"] / 255 for s in splits]
    shift, scale = (torch.tensor(values)[:, None, None] for values in (mean, std))
    with torch.no_grad():
        x, test = (model.eval()((i - shift) / scale) for i in images)
    scaled = [((i - x.mean(0)) / x.std(0).clamp(min=1e-6)).numpy() for i in (x, test)]
    lbfgs = LogisticRegression(C=1 / (1e-2 * len(x)), tol=1e-6, max_iter=5000).fit(scaled[0], y)
    votes = KNeighborsClassifier(20, weights=lambda d: np.exp((1 - d) / 0.1), metric="cosine")
    layer, generator = nn.Linear(512, 4), torch.Generator().manual_seed(0)
    layer.weight.data = 0.01 * torch.randn(4, 512, generator=generator)
    layer.bias.data.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [10])
    for _ in range(20):
        for rows in torch.randperm(len(x), generator=generator).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(layer(x[rows]), y[rows]).backward()
            optimizer.step()
        schedule.step()
    return {
        "linear-lbfgs": 100 * lbfgs.score(scaled[1], z),
        "linear": 100 * float((layer(test).argmax(1) == z).float().mean()),
        "knn": 100 * votes.fit(x, y).score(test, z),
    }


def evaluate(*arguments: object, **options: Any) -> pd.DataFrame:
    done = eqco("evaluate", *arguments, "--threads", 1, **options)
    assert done.returncode == 0, done.stderr
    path = arguments[arguments.index("--out") + 1] if "--out" in arguments else "evaluations.csv"
    return pd.read_csv(options.get("cwd", Path()) / str(path), keep_default_na=False)


@pytest.fixture
def study(tmp_path, tiny_values) -> Path:
    path = tmp_path / "photos.yaml"
    path.write_text(yaml.safe_dump(with_values(tiny_values, {"data": PHOTOS, **SETTINGS})))
    return path


@pytest.mark.parametrize("options", [{}, IMAGENET], ids=["the images' mean", "ImageNet's mean"])
def test_foreign_weights_have_the_accuracies_of_plain_torch(
    options, photos, resnet18, study, tmp_path
):
    manifest = read_manifest(photos)
    numbers = [[float(x) for x in value.split(",")] for value in options.values()]
    mean, std = numbers or (manifest["mean"], manifest["std"])
    expected = in_plain_torch(resnet18, photos, mean, std)
    table = evaluate(
        *(resnet18, "--backbone", "resnet18", "--data", photos, "--study", study),
        *(word for option in options.items() for word in option),
        *("--protocols", "linear,linear-lbfgs,knn"),
        cwd=tmp_path,
    )
    found = dict(zip(table["protocol"], table["accuracy"], strict=True))
    assert found == pytest.approx(expected, abs=0.84)  # one test image of 120
    assert all(30 < accuracy < 95 for accuracy in expected.values())  # of four classes
    assert set(table["prefix"]) == {"state_dict.module.encoder_q."}
    assert [json.loads(table[name][0]) for name in ("mean", "std")] == [mean, std]


def test_a_table_has_a_row_per_evaluation(photos, resnet18, tmp_path):
    command = (resnet18, "--backbone", "resnet18", "--data", photos, "--protocols")
    first = evaluate(*command, "knn", cwd=tmp_path)
    assert json.loads(first["settings"][0]) == {"k": 200, "temperature": 0.1}
    assert first["sha256"][0] == sha256(resnet18)
    assert first["checksum"][0] == dataset_hash(read_manifest(photos))
    assert evaluate(*command, "knn", cwd=tmp_path).equals(first)
    key = ("--prefix", "state_dict.module.encoder_k")
    second = evaluate(*command, "knn", *key, cwd=tmp_path)
    assert second["prefix"].tolist() == [
        "state_dict.module.encoder_q.",
        "state_dict.module.encoder_k.",
    ]
    assert second[:1].equals(first)


def test_an_encoder_of_a_cell_has_the_accuracies_of_its_evaluations(tiny, digits, tmp_path):
    """It says its network itself, and each of its two encoders is one."""
    path = tmp_path / "encoder.safetensors"
    random_encoder(path, tiny)
    saved, checksum = read_encoder(path), dataset_hash(read_manifest(digits))
    key = {name: tensor.flip(0) for name, tensor in saved.tensors.items()}
    save_encoder(path, SavedEncoder(saved.config, checksum, saved.tensors, key=key))
    out = tmp_path / "knn.json"
    knn_eval(TINY, path, digits, out, device="cpu", threads=1)
    options = ("--data", digits, "--study", TINY, "--out", tmp_path / "table.csv")
    table = evaluate(path, *options, "--protocols", "knn")
    assert table["accuracy"][0] == round(json.loads(out.read_text())["accuracy"]["knn"], 2)
    assert table["backbone"][0] == "conv5"
    table = evaluate(path, *options, "--protocols", "knn", "--prefix", "key.backbone")
    assert table["prefix"].tolist() == ["backbone.", "key.backbone."]
    message = fails("evaluate", path, *options, "--backbone", "resnet18")
    assert f"--backbone: resnet18: the encoder in {path} is of conv5" in message
    save_encoder(path, SavedEncoder(saved.config, checksum, {}, "the loss is nan"))
    message = fails("evaluate", path, *options)
    assert "has no weights, as its training failed: the loss is nan" in message


def test_a_probe_on_views_is_that_of_linear_eval(tiny_values, digits, tmp_path):
    """It starts over from the same seed, so that a cell of seed 0 has the same accuracy."""
    changes = {"evaluate.linear": {"epochs": 1, "drops": [], "augment": {"flip": 0.5}}}
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump(with_values(tiny_values, changes)))
    path = tmp_path / "encoder.safetensors"
    random_encoder(path, load_study(study))
    saved, checksum = read_encoder(path), dataset_hash(read_manifest(digits))
    save_encoder(path, SavedEncoder(saved.config, checksum, saved.tensors))
    linear_eval(study, path, digits, tmp_path / "linear.json", device="cpu", threads=1)
    options = ("--data", digits, "--study", study, "--protocols", "linear")
    table = evaluate(path, *options, cwd=tmp_path)
    expected = json.loads((tmp_path / "linear.json").read_text())["accuracy"]["linear"]
    assert table["accuracy"][0] == round(expected, 2)


def test_each_mistake_is_one_line_and_leaves_no_table(
    photos, digits, resnet18, study, tiny_values, tmp_path
):
    no_lbfgs = tmp_path / "null.yaml"
    changes = {"data": PHOTOS, "evaluate.linear_lbfgs": None}
    no_lbfgs.write_text(yaml.safe_dump(with_values(tiny_values, changes)))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "code").write_bytes(b"cposix\nsystem\n(S'touch it-ran'\ntR.")
    base = {"--backbone": "resnet18", "--data": photos, "--protocols": "knn"}
    for changed, message in (
        ({"--data": tmp_path / "none"}, "none/MANIFEST.json: cannot be read"),
        ({"--data": digits}, "conv1.weight: is 64 x 3 x 7 x 7, resnet18 of 1-channel images needs"),
        ({"--data": digits, "--study": study}, "holds digits, the study is of photos"),
        ({"--backbone": "resnet50"}, "is missing and"),
        ({"--backbone": "resnet99"}, "--backbone: 'resnet99': "),
        ({"--backbone": None}, "moco.pth.tar: --backbone is missing"),
        ({"--stem": "small"}, "resnet18 of 3-channel images needs 64 x 3 x 3 x 3"),
        ({"--protocols": "knn,magic"}, "'magic': allowed are linear-lbfgs, linear, knn"),
        ({"--protocols": ""}, "'': allowed are linear-lbfgs, linear, knn"),
        ({"--protocols": "linear-lbfgs", "--study": no_lbfgs}, "is null in the study's evaluate"),
        ({"--mean": "0.5"}, "--mean: [0.5]: the images have 3 channels"),
        ({"--std": "0,0,0"}, "--std: '0,0,0': allowed are numbers from 1e-06"),
        ({"--mean": "a"}, "--mean: 'a': allowed are numbers from 0"),
        ({"--prefix": "module"}, "has no weights of resnet18 of 3-channel images with the prefix"),
        ({"--out": "other.csv"}, "--out: other.csv: is another table"),
        ({"weights": "none"}, "none: is no file"),
        ({"weights": "code"}, "could run code: it is not loaded"),
    ):
        options = {"weights": resnet18, **base, **changed}
        first = options.pop("weights")
        words = [word for option in options.items() if option[1] is not None for word in option]
        assert message in fails("evaluate", first, *words, cwd=tmp_path), changed
    assert not {"evaluations.csv", "it-ran", "state"} & {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "other.csv").read_text() == "a,b\n1,2\n"
