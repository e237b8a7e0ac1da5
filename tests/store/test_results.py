"""A cell's files belong together, or the table refuses them."""

import json
import os

import pytest
import torch
from helpers import cells

from eqco.errors import InputError
from eqco.networks.encoder import Encoder
from eqco.store import cells as results
from eqco.study.protocols import Evaluate, Linear
from eqco.study.study import config_hash


@pytest.fixture
def config(tiny):
    return tiny.resolve(next(iter(cells(tiny).values())))


@pytest.fixture
def encoder(tiny):
    return Encoder(tiny.network, channels=1)


def test_an_encoder_file_holds_its_weights_and_what_made_them(tmp_path, encoder, config):
    path = tmp_path / "encoder.safetensors"
    results.save_encoder(path, results.SavedEncoder(config, "data", encoder.state_dict()))
    saved = results.read_encoder(path)
    assert (saved.config, saved.dataset) == (config, "data")
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, saved.tensors[name])


def test_an_encoder_file_holds_the_key_encoder_apart(tmp_path, encoder, config):
    weights = encoder.state_dict()
    key = {name: 2 * tensor for name, tensor in weights.items()}
    path = tmp_path / "encoder.safetensors"
    results.save_encoder(path, results.SavedEncoder(config, "data", weights, key=key))
    saved = results.read_encoder(path)
    assert saved.tensors.keys() == saved.key.keys() == weights.keys()
    assert all(torch.equal(saved.key[name], key[name]) for name in key)
    assert all(torch.equal(saved.tensors[name], weights[name]) for name in weights)


def test_the_same_encoder_gives_the_same_bytes(tmp_path, encoder, config):
    """Also of many tries: a hash map's order would show."""
    path = tmp_path / "encoder.safetensors"
    contents = set()
    for _ in range(20):
        results.save_encoder(path, results.SavedEncoder(config, "data", encoder.state_dict()))
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_an_encoder_file_may_say_why_there_is_none(tmp_path, config):
    results.save_encoder(tmp_path / "x", results.SavedEncoder(config, "data", {}, "diverged"))
    saved = results.read_encoder(tmp_path / "x")
    assert (saved.failed, saved.tensors) == ("diverged", {})


def test_a_damaged_encoder_file_is_refused(tmp_path, encoder, config):
    path = tmp_path / "encoder.safetensors"
    with pytest.raises(InputError, match="is missing"):
        results.read_encoder(path)
    results.save_encoder(path, results.SavedEncoder(config, "data", encoder.state_dict()))
    os.truncate(path, 1000)
    with pytest.raises(InputError, match="is not an encoder of this project"):
        results.read_encoder(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is not an encoder of this project"):
        results.read_encoder(path)


def test_weights_of_others_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="is not an encoder of this project"):
        results.read_encoder(tmp_path / "x.safetensors")


@pytest.fixture
def folder(tmp_path, config):
    identity = {"config_hash": config_hash(config), "encoder": "e" * 64}
    results.write_json(tmp_path / "pretrain.json", {**identity, "seconds": 1})
    accuracy = {"linear.json": {"linear": 1.0, "linear-lbfgs": 2.0}, "knn.json": {"knn": 3.0}}
    for name, values in accuracy.items():
        settings = results.settings_of(Evaluate(), name)
        results.write_json(tmp_path / name, {**identity, "settings": settings, "accuracy": values})
    return tmp_path


def identity_of(folder) -> dict[str, str]:
    values = json.loads((folder / "pretrain.json").read_text())
    return {name: values[name] for name in ("config_hash", "encoder")}


def test_a_cell_is_read_with_all_its_accuracies(folder, config):
    summary, accuracies = results.read_cell(folder, config_hash(config), Evaluate())
    assert summary == {
        **identity_of(folder),
        "seconds": 1,
        "smallest_class": None,
        "geometry": None,
        "correct": {},
    }
    assert accuracies == {"linear": 1.0, "linear-lbfgs": 2.0, "knn": 3.0}


@pytest.mark.parametrize("name", ["pretrain.json", "linear.json", "knn.json"])
@pytest.mark.parametrize("key", ["config_hash", "encoder"])
def test_a_file_of_another_run_is_refused(folder, config, name, key):
    values = json.loads((folder / name).read_text())
    results.write_json(folder / name, {**values, key: "other"})
    with pytest.raises(InputError, match=rf"{key}: .*belongs to another run"):
        results.read_cell(folder, config_hash(config), Evaluate())


def test_an_evaluation_with_other_settings_is_refused(folder, config):
    with pytest.raises(InputError, match=r"linear.json: settings: .*belongs to another run"):
        results.read_cell(folder, config_hash(config), Evaluate(linear=Linear(lr=3.0)))


@pytest.mark.parametrize("name", ["pretrain.json", "linear.json", "knn.json"])
def test_a_missing_or_damaged_file_is_named(folder, config, name):
    (folder / name).write_text("{")
    with pytest.raises(InputError, match=rf"{name}: is damaged"):
        results.read_cell(folder, config_hash(config), Evaluate())
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: cannot be read: No such file"):
        results.read_cell(folder, config_hash(config), Evaluate())
