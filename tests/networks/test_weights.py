"""Checkpoints of others: their tensors are found behind any prefix; code in them does not run."""

import os
import pickle
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from eqco.errors import InputError
from eqco.networks.backbones import resnet
from eqco.networks.weights import load_backbone, read_weights

Names = dict[str, Tensor]


def random_weights(seed: int, name: str = "resnet18") -> Names:
    """torchvision's state dict, classifier included, with a batch norm that is not the initial."""
    torch.manual_seed(seed)
    state = getattr(models, name)(num_classes=7).state_dict()
    return {k: torch.rand_like(t) if t.is_floating_point() else t for k, t in state.items()}


@pytest.fixture(scope="module")
def weights() -> Names:
    return random_weights(0)


def behind(prefix: str, tensors: Names) -> Names:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def moco(query: Names, key: Names) -> dict[str, Any]:
    """A checkpoint, as main_moco.py of facebookresearch/moco saves it."""
    names = {
        **behind("module.encoder_q.", query),
        **behind("module.encoder_k.", key),
        "module.queue": torch.rand(8, 4),
        "module.queue_ptr": torch.zeros(1, dtype=torch.long),
    }
    optimizer = {"state": {0: {"momentum_buffer": torch.rand(3)}}, "param_groups": [{"lr": 0.03}]}
    return {"epoch": 200, "arch": "resnet18", "state_dict": names, "optimizer": optimizer}


def children(tensors: Names) -> Names:
    """The names that nn.Sequential(*network.children()) gives, as in lightly's tutorials."""
    order = [name for name, _ in models.resnet18().named_children()]
    parts = {name: name.split(".", 1) for name in tensors}
    return {f"{order.index(child)}.{own}": tensors[n] for n, (child, own) in parts.items()}


OTHER = random_weights(1)
CHECKPOINTS: dict[str, tuple[str, Callable[[Names], Any]]] = {
    "torchvision": ("", lambda w: w),
    "moco": ("state_dict.module.encoder_q.", lambda w: moco(w, OTHER)),
    "mocov3": (
        "state_dict.module.base_encoder.",
        lambda w: {
            "state_dict": {
                **behind("module.base_encoder.", w),
                **behind("module.momentum_encoder.", OTHER),
            }
        },
    ),
    "selfsup": (
        "model.network.",
        lambda w: {"model": {**behind("network.", w), **behind("network_k.", OTHER)}},
    ),
    "dino": (
        "student.module.backbone.",
        lambda w: {
            "student": behind("module.backbone.", w),
            "teacher": behind("backbone.", OTHER),
        },
    ),
    "a teacher alone": ("teacher.", lambda w: {"teacher": w}),
    "solo-learn": ("state_dict.backbone.", lambda w: {"state_dict": behind("backbone.", w)}),
    "lightly": ("backbone.", lambda w: behind("backbone.", children(w))),
    "barlow twins": (
        "model.module.backbone.",
        lambda w: {"model": behind("module.backbone.", w), "epoch": 1000},
    ),
    "no counters": ("", lambda w: {n: t for n, t in w.items() if "num_batches" not in n}),
}


def load(tensors: Names, prefix: str | None = None) -> tuple[str, nn.Module]:
    backbone, _ = resnet("resnet18", 3, "large")
    return load_backbone(backbone, "resnet18", tensors, "file", prefix), backbone


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_checkpoint_of_others_is_the_backbone_that_it_holds(kind, weights, tmp_path):
    expected_prefix, make = CHECKPOINTS[kind]
    torch.save(make(weights), tmp_path / "file")
    prefix, backbone = load(read_weights(tmp_path / "file"))
    assert prefix == expected_prefix
    model = models.resnet18(num_classes=7)
    model.load_state_dict(weights)
    model.fc = nn.Identity()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(backbone.eval()(images), model.eval()(images))


def test_safetensors_are_read_whatever_their_name(weights, tmp_path):
    save_file(behind("encoder.", weights), tmp_path / "model.pth")
    assert read_weights(tmp_path / "model.pth").keys() == behind("encoder.", weights).keys()


def test_a_prefix_chooses_among_several(weights):
    both = {**behind("a.", weights), **behind("b.", OTHER)}
    assert "file: has weights of resnet18 several times; --prefix: a., b." in refused(both)
    for prefix in ("b", "b."):
        found, backbone = load(both, prefix)
        assert found == "b."
        assert torch.equal(backbone.state_dict()["conv1.weight"], OTHER["conv1.weight"])
    found, _ = load(moco(weights, OTHER)["state_dict"], "module.encoder_k")
    assert found == "module.encoder_k."


def refused(tensors: Names, prefix: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load(tensors, prefix)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_of_another_network(weights):
    message = refused(random_weights(0, "resnet50"))
    assert "layer1.0.conv1.weight: is 64 x 64 x 1 x 1, resnet18 needs 64 x 64 x 3 x 3" in message
    # all of ResNet-18's names and shapes are in ResNet-34
    message = refused(random_weights(0, "resnet34"))
    assert "layer1.2.conv1.weight: resnet18 has no such weights" in message
    partial = {n: t for n, t in weights.items() if n not in ("layer2.0.bn1.bias", "bn1.bias")}
    message = refused(behind("x.", partial))
    assert "x.bn1.bias: is missing and 1 more; resnet18 needs it" in message
    assert "has no weights of resnet18; it has a" in refused({"a": torch.rand(3)})
    assert "with the prefix 'x'; it has conv1.weight" in refused(weights, "x")
    nan = {**weights, "bn1.bias": torch.full((64,), torch.nan)}
    assert "bn1.bias: has values that are not finite" in refused(nan)


class Code:
    """Loading it as pickle would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_does_not_run(zipped, weights, tmp_path):
    path, folder = tmp_path / "file", tmp_path / "it-ran"
    content = {"state_dict": weights, "more": Code(folder)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"file: holds posix\.mkdir, which is no tensor") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
    assert not folder.exists()
    torch.load(path, weights_only=False)
    assert folder.exists()  # so it would have run


@pytest.mark.parametrize("content", [Code(Path("it-ran")), models.resnet18(), Namespace(a=1)])
def test_objects_in_a_pickle_are_refused(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("plain").write_bytes(pickle.dumps(content))
    torch.save(content, "saved")
    for name in ("plain", "saved"):
        with pytest.raises(InputError) as caught:
            read_weights(Path(name))
        assert str(caught.value).startswith(f"{name}: ")
        assert "\n" not in str(caught.value)
        assert "weights_only=False" not in str(caught.value)
    assert not Path("it-ran").exists()


@pytest.mark.parametrize("content", [[torch.rand(3)], {"epoch": 3}, 5])
def test_a_file_without_names_of_tensors(content, tmp_path):
    torch.save(content, tmp_path / "file")
    with pytest.raises(InputError, match="file: holds no dictionary of tensors"):
        read_weights(tmp_path / "file")


def test_damaged_files_are_refused_in_one_line(weights, tmp_path):
    random = torch.Generator().manual_seed(0)
    torch.save(weights["conv1.weight"], tmp_path / "zip")
    save_file({"a": torch.rand(3)}, tmp_path / "safetensors")
    torch.save({"a": torch.rand(3)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    for source in ("zip", "safetensors", "old"):
        content = (tmp_path / source).read_bytes()
        for _ in range(30):
            end = int(torch.randint(len(content), (), generator=random))
            (tmp_path / "cut").write_bytes(content[:end])
            with pytest.raises(InputError, match="cut: ") as caught:
                read_weights(tmp_path / "cut")
            assert "\n" not in str(caught.value)
