"""Exported encoders: others load them and get the same features; refusals write nothing."""

import json
import re
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from helpers import cells, eqco, fails, random_encoder, with_values
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from eqco.commands import export as exporting
from eqco.commands.export import export
from eqco.commands.steps import Format
from eqco.data.packed import read_manifest
from eqco.errors import InputError
from eqco.evaluation.features import frozen_backbone
from eqco.networks.formats import FORMATS
from eqco.runtime.files import sha256
from eqco.store.cells import SavedEncoder, read_encoder, save_encoder

pytestmark = pytest.mark.usefixtures("fork_server")
RGB = {"kind": "image-folder", "name": "photos", "path": "photos", "size": 32}
RESNET18 = {"data": RGB, "network.backbone": "resnet18"}
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet18": RESNET18,
    "resnet18, small stem": {**RESNET18, "network.stem": "small"},
    "resnet18, small stem, grey": {"network.backbone": "resnet18", "network.stem": "small"},
    "resnet18, grey": {"network.backbone": "resnet18"},
    "resnet18, split batch norm": {**RESNET18, "network.batch_norm_groups": 4},
    "resnet50": {**RESNET18, "network.backbone": "resnet50"},
    "conv5": {},
    "a ViT": {**RESNET18, "network.backbone": "timm/test_vit"},
    "split batch norm with activations": {
        **RESNET18,
        "network.backbone": "timm/test_efficientnet",
        "network.batch_norm_groups": 4,
    },
}
OF_TIMM = list(NETWORKS)[-2:]
FURTHER = ("resnet18", "resnet18, small stem", "resnet18, grey", "resnet50")


def case(network: str, *more: str) -> Any:
    """A case of a test; some networks are further ones."""
    return pytest.param(network, *more, marks=[pytest.mark.slow] * (network in FURTHER))


@pytest.fixture
def encoder(tmp_path, study_with):
    """Make an encoder's file for changes of the tiny study."""

    def make(changes: dict[str, Any]) -> Path:
        path = tmp_path / "cell" / "encoder.safetensors"
        random_encoder(path, study_with(changes))
        return path

    return make


def features(path: Path, images: Tensor) -> Tensor:
    """The encoder's features; with channels last convolutions sum in another order, 3e-6 apart."""
    backbone = frozen_backbone(read_encoder(path), images.shape[1])
    return backbone.to(memory_format=torch.contiguous_format)(images)


def by_the_card(file: Path, monkeypatch) -> dict[str, Any]:
    """The variables of the Python block of a file's card, run beside the file."""
    card = file.with_name(f"{file.name}.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", card, re.M | re.S)
    monkeypatch.chdir(file.parent)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def check_equal(features: Tensor, expected: Tensor, tolerance: float) -> None:
    assert features.shape == expected.shape
    assert (features - expected).abs().max() <= tolerance * max(1, expected.abs().max())


def test_a_cell_from_its_training_to_others_models(tmp_path, digits, tiny_values, monkeypatch):
    pytest.importorskip("timm", reason="the extra timm is not installed")
    changes = {"network.backbone": "resnet18", "network.batch_norm_groups": 2}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(with_values(tiny_values, changes)))
    cell, path = tmp_path / "cell", tmp_path / "cell" / "encoder.safetensors"
    evaluate = ("tiny.yaml", "--encoder", path, "--data", digits, "--out", cell / "knn.json")
    name = "method~simo/negatives~1/margin~0/seed~0"
    for command in (
        ("pretrain", "tiny.yaml", "--cell", name, "--data", digits, "--out", cell),
        ("knn-eval", *evaluate),
        *(("export", path, "--to", to, "--out", to, "--card") for to in ("torchvision", "timm")),
    ):
        done = eqco(*command, cwd=tmp_path)
        assert done.returncode == 0, done
    assert done.stdout == "timm: normalised images (B, 1, 8, 8) to features (B, 512)\n"
    accuracy = json.loads((cell / "knn.json").read_text())["accuracy"]["knn"]
    for to in ("torchvision", "timm"):
        names = by_the_card(tmp_path / to, monkeypatch)
        check_equal(names["features"], features(path, names["images"]), 1e-6)
        card = (tmp_path / f"{to}.md").read_text()
        assert f"| knn | {accuracy:.2f} |" in card
        assert f"torch {torch.__version__.partition('+')[0]}" in card


@pytest.mark.parametrize(
    ("network", "to"),
    [
        *(
            case(name, to)
            for name in NETWORKS
            if name.startswith("resnet18")
            for to in ("torchvision", "timm")
        ),
        *(case(name, "timm") for name in OF_TIMM),
    ],
)
def test_others_models_load_the_weights_as_the_card_says(
    network, to, encoder, tmp_path, monkeypatch
):
    pytest.importorskip("timm", reason="the extra timm is not installed")
    path = encoder(NETWORKS[network])
    export(path, to, tmp_path / "out.safetensors", card=True)
    names = by_the_card(tmp_path / "out.safetensors", monkeypatch)
    check_equal(names["features"], features(path, names["images"]), 1e-6)


@pytest.mark.parametrize(
    "network", [case("resnet18"), case("resnet18, split batch norm"), case("resnet50")]
)
def test_torchvision_misses_only_the_classifier_and_timm_nothing(network, encoder, tmp_path):
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    name = network.partition(",")[0]
    path = encoder(NETWORKS[network])
    images = 2 * torch.randn(4, 3, 32, 32) + 1
    for to, model in (
        ("torchvision", getattr(models, name)()),
        ("timm", timm.create_model(name, num_classes=0)),
    ):
        export(path, to, tmp_path / to, card=False)
        missing, unexpected = model.load_state_dict(load_file(tmp_path / to), strict=False)
        assert missing == (["fc.weight", "fc.bias"] if to == "torchvision" else [])
        assert unexpected == []
        model.fc = nn.Identity()
        with torch.no_grad():
            check_equal(model.eval()(images), features(path, images), 1e-6)
    assert (tmp_path / "torchvision").read_bytes() == (tmp_path / "timm").read_bytes()


@pytest.mark.parametrize(
    ("network", "to"),
    [
        ("conv5", "onnx"),
        ("resnet18, split batch norm", "pt2"),
        ("a ViT", "onnx"),
        case("resnet18, small stem", "onnx"),
        case("resnet18, small stem", "pt2"),
        pytest.param("resnet18, split batch norm", "onnx", marks=pytest.mark.slow),
        pytest.param("conv5", "pt2", marks=pytest.mark.slow),
        pytest.param("a ViT", "pt2", marks=pytest.mark.slow),
    ],
)
def test_programs_have_the_same_features(network, to, encoder, tmp_path, monkeypatch):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="the extra onnx is not installed")
    path = encoder(NETWORKS[network])
    export(path, to, tmp_path / "out", card=True)
    names = by_the_card(tmp_path / "out", monkeypatch)
    images = torch.as_tensor(names["images"])
    check_equal(torch.as_tensor(names["features"]), features(path, images), 1e-5)
    content = (tmp_path / "out").read_bytes()
    assert str(Path(exporting.__file__).parents[2]).encode() not in content


def test_the_formats_are_those_of_the_command():
    assert tuple(FORMATS) == get_args(Format)


def test_a_card_has_configuration_accuracies_and_provenance(encoder, tmp_path, digits, monkeypatch):
    """And the images' mean and std, where the project's folder has the dataset."""
    path = encoder({"network.backbone": "resnet18", "grid.0.margins": ["eqco"]})
    saved, manifest = read_encoder(path), read_manifest(digits)
    checksum = ":".join(manifest["splits"][split]["sha256"] for split in ("train", "test"))
    save_encoder(path, SavedEncoder(saved.config, checksum, saved.tensors))
    digest = {"encoder": sha256(path)}
    provenance = {"revision": "v1-2-g345", "versions": {"torch": "2"}, "hardware": "an abacus"}
    whole = {"config_hash": "a1b2", "images": 12345, "seconds": 6.5, "provenance": provenance}
    for name, content in {
        "pretrain.json": whole,
        "linear.json": {"accuracy": {"linear": 81.256, "linear@key": 11.0}},
        "knn.json": {"accuracy": {"knn": 70.0}},
    }.items():
        (path.parent / name).write_text(json.dumps({**digest, **content}))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "digits").symlink_to(digits)
    monkeypatch.chdir(tmp_path)
    export(path, "torchvision", Path("out"), card=True)
    card = Path("out.md").read_text()
    for text in (
        *("# resnet18, pretrained by simo on digits", "license: apache-2.0", "Apache-2.0"),
        *("| negatives K | 1 |", "| margin m | eqco |", "| α | 256.0 |", "| temperature τ | 0.2 |"),
        *("| epochs | 1 |", "| batch N | 256 |", '"projector_norm": "all"'),
        *("| linear | 81.26 |", "| knn | 70.00 |", f"mean {manifest['mean']}"),
        *("v1-2-g345", "torch 2", "an abacus", "12,345", checksum, digest["encoder"]),
    ):
        assert text in card, text
    assert "@key" not in card
    assert "\n\n\n" not in card


@pytest.mark.parametrize("to", ["torchvision", "timm"])
def test_conv5_is_no_network_of_others(to, encoder, tmp_path):
    message = fails("export", encoder({}), "--to", to, "--out", tmp_path / "out", "--card")
    assert f"encoder.safetensors: network.backbone: conv5: {to} has no such network" in message
    assert "allowed are resnet18 and resnet50, or --to onnx or pt2" in message
    assert [path.name for path in tmp_path.iterdir()] == ["cell"]


def test_a_model_of_timm_is_none_of_torchvision(encoder, tmp_path):
    message = refused(encoder(NETWORKS["a ViT"]), "torchvision", tmp_path / "out", False)
    assert "network.backbone: timm/test_vit: torchvision has no such network" in message
    assert message.endswith("or --to timm, onnx or pt2")


def test_what_is_no_encoder(tmp_path, tiny):
    (tmp_path / "text").write_text("text")
    for name, message in (("text", "is not an encoder"), ("none", "is missing")):
        assert message in fails("export", tmp_path / name, "--to", "pt2", "--out", tmp_path / "out")
    config = tiny.resolve(next(iter(cells(tiny).values())))
    save_encoder(tmp_path / "failed", SavedEncoder(config, "a:b", {}, "the loss is nan"))
    message = fails("export", tmp_path / "failed", "--to", "pt2", "--out", tmp_path / "out")
    assert "failed: has no weights, as its training failed: the loss is nan" in message
    assert not (tmp_path / "out").exists()


def test_the_encoder_is_not_overwritten(encoder):
    path = encoder({})
    before = path.read_bytes()
    assert "encoder.safetensors: is the encoder itself" in refused(path, "pt2", path, False)
    assert path.read_bytes() == before


def refused(*arguments: Any) -> str:
    with pytest.raises(InputError) as caught:
        export(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("module", "to"), [("timm", "timm"), ("onnxruntime", "onnx")])
def test_a_missing_extra_is_named(module, to, encoder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    message = refused(encoder(RESNET18), to, tmp_path / "out", True)
    assert message.startswith(f"--to {to}: {module} is not installed")
    assert f'pip install "eqco[{to}]"' in message
    assert [path.name for path in tmp_path.iterdir()] == ["cell"]


@pytest.mark.parametrize("wrong", [lambda x: x.mean(dim=(2, 3)) + 2, lambda x: x[:, :, 0, 0] / 0])
def test_a_file_whose_features_differ_is_not_written(wrong, encoder, tmp_path, monkeypatch):
    path = encoder({})
    pad = nn.ConstantPad1d((0, 255), 0.0)
    monkeypatch.setitem(FORMATS, "pt2", lambda *_: (b"content", lambda x: pad(wrong(x))))
    message = refused(path, "pt2", tmp_path / "out", True)
    assert "out: is not written: its features differ from the backbone's by" in message
    assert [path.name for path in tmp_path.iterdir()] == ["cell"]


def test_accuracies_of_another_encoder_are_not_on_a_card(encoder, tmp_path):
    path = encoder({})
    (path.parent / "knn.json").write_text('{"encoder": "another", "accuracy": {"knn": 99}}')
    message = refused(path, "pt2", tmp_path / "out", True)
    assert "knn.json: encoder: another: belongs to another encoder" in message
    assert [path.name for path in tmp_path.iterdir()] == ["cell"]
    export(path, "pt2", tmp_path / "out", False)  # without a card it does not matter
