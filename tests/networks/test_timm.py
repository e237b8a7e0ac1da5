"""Models of timm as backbones: their features, images, batch norm, and weights to start from."""

import sys
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from helpers import cells, eqco, fails, image_folder, with_values
from safetensors.torch import save_file
from torch import nn

from eqco.data import sources
from eqco.errors import InputError, Interrupted
from eqco.methods import build
from eqco.networks.backbones import make_backbone
from eqco.networks.batch_norm import GroupedBatchNorm2d, SyncBatchNorm
from eqco.networks.encoder import Encoder
from eqco.runtime.signals import Stop
from eqco.store.checkpoint import Checkpoints
from eqco.study.load import parse_study
from eqco.study.recipe import Network
from eqco.study.study import Study, config_hash
from eqco.training import cost
from eqco.training.diagnostics import before_batch_norm
from eqco.training.loop import pretrain
from eqco.training.step import Training

timm = pytest.importorskip("timm", reason="the extra timm is not installed")
pytestmark = pytest.mark.usefixtures("fork_server")
CPU = torch.device("cpu")
VIT = "timm/vit_tiny_patch16_224"
SMALL = "timm/test_vit"  # 0.37 million parameters
PHOTOS = {"kind": "image-folder", "name": "photos", "path": "photos", "size": 32}


def of_a_vit(values: dict[str, Any], **changes: Any) -> Study:
    """MoCo v3's method on 32 pixels, by AdamW."""
    block = {"methods": ["simmoco"], "negatives": [4], "margins": ["eqco"], "seeds": [0]}
    study = {
        "data": PHOTOS,
        "network.backbone": VIT,
        "grid": [block],
        "pretrain.batch": 12,
        "pretrain.epochs": 2,
        "pretrain.lr": 1e-3,
        "pretrain.optimizer": "adamw",
        "pretrain.symmetric": True,
    }
    return parse_study(with_values(values, study | changes), "tiny.yaml")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A packed folder of 24 images of 32 pixels."""
    folder = tmp_path_factory.mktemp("photos")
    images = image_folder(folder / "raw", classes=3, train=8, test=2)
    study = {**PHOTOS, "path": str(images)}
    sources.prepare(sources.ImageFolder.model_validate(study), folder / "packed")
    return folder / "packed"


@pytest.mark.parametrize(
    ("name", "channels", "size", "features"),
    [
        (VIT, 3, 32, 192),
        (VIT, 1, 224, 192),
        ("timm/test_convnext", 3, 48, 64),
        ("timm/test_efficientnet", 1, 32, 256),
    ],
)
def test_a_model_gives_as_many_features_as_it_says(name, channels, size, features):
    model, count = make_backbone(name, channels, size)
    assert model.eval()(torch.rand(2, channels, size, size)).shape == (2, count) == (2, features)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "timm/vit_huge_and_new"}, "timm/vit_huge_and_new: timm .* has no such model"),
        ({"size": 8}, r"vit_tiny_patch16_224: gives no features of images of 3 x 8 x 8: "),
        ({"batch_norm_groups": 2}, "batch_norm_groups: 2: timm/.* has no batch norm to split: mu"),
        (
            {"backbone": "timm/levit_128s", "size": 224, "batch_norm_groups": 2},
            "levit_128s: has a BatchNorm1d, which cannot be shared",
        ),
    ],
)
def test_what_cannot_be_made_is_one_line(changes, message):
    size = changes.pop("size", 32)
    network = {"backbone": VIT, "projector": [8], **changes}
    with pytest.raises(InputError, match=f"^network.*{message}") as caught:
        Encoder(Network.model_validate(network), 3, size)
    assert "\n" not in str(caught.value)


def test_a_missing_timm_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r'timm is not installed; `pip install "eqco\[timm\]"`'):
        make_backbone(VIT, 3, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network.stem": "small"}, "network.stem: small: timm/.* has no such choice: must be la"),
        ({"network.zero_init_residual": True}, "zero_init_residual: true: .* must be false"),
        ({"network.weights": "no.safetensors"}, "network.weights: no.safetensors: is no file"),
    ],
)
def test_a_study_is_refused_without_timm(tiny_values, changes, message):
    with pytest.raises(InputError, match=message):
        of_a_vit(tiny_values, **changes)


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_efficientnet"])
def test_split_batch_norm_is_batch_norm_of_every_group(name, monkeypatch):
    """Both kinds that timm has, with an activation inside and without."""
    made, _ = make_backbone(name, 3, 32)
    monkeypatch.setattr("eqco.networks.batch_norm.ranks", lambda: 1)
    network = {"backbone": name, "batch_norm_groups": 2, "projector": [8]}
    split = Encoder(Network.model_validate(network), 3, 32).backbone
    split.load_state_dict(made.state_dict())  # names and shapes are timm's
    assert any(isinstance(m, GroupedBatchNorm2d) for m in split.modules())
    x = torch.rand(8, 3, 32, 32)
    y = split.train()(x)
    for group in range(2):
        torch.testing.assert_close(y[group::2], made.train()(x[group::2]), rtol=1e-3, atol=1e-4)


def test_dropout_and_drop_path_are_off():
    model, _ = make_backbone("timm/swin_s3_tiny_224", 3, 64)
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(model.train()(x), model.eval()(x))


def test_the_layers_before_a_batch_norm_with_an_activation():
    model, _ = make_backbone("timm/test_efficientnet", 3, 32)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(before_batch_norm(model)) >= len(convolutions) / 2


def test_a_key_encoder_follows_a_vit(tiny_values):
    study = of_a_vit(tiny_values, **{"pretrain.ema": 0.75, "network.backbone": SMALL})
    (cell,) = cells(study).values()
    method = build(cell, Encoder(study.network, 3, 32), study.pretrain)
    before = [p.clone() for p in method.key_encoder.parameters()]
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.add_(1)
    method.update_key_encoder()
    for old, new in zip(before, method.key_encoder.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)


def test_the_cost_of_a_vit(tiny_values):
    """Adam's two slots of each trained parameter, and both encoders, are in a checkpoint."""
    study = of_a_vit(tiny_values, **{"network.backbone": SMALL})
    (cell,) = cells(study).values()
    encoder, checkpoint = cost.saved_bytes(study, cell)
    one = sum(p.nbytes for p in Encoder(study.network, 3, 32).parameters())
    assert 2 * one <= encoder < 2.01 * one
    assert 4 * one <= checkpoint < 4.01 * one
    assert cost.estimate(study, cell) > checkpoint + one


def stopped_at(step: int) -> Stop:
    class At(Stop):
        left = step

        def __bool__(self) -> bool:
            self.left -= 1
            self.asked_by = 15 if self.left < 0 else None
            return self.left < 0

    return At()


def whole_and_parts(values: dict[str, Any], data, folder) -> tuple[dict, dict, int]:
    """The state of a ViT-tiny that was never stopped, of one that was, and the stops."""
    study, stops = of_a_vit(values), 0
    (cell,) = cells(study).values()
    whole, _ = pretrain(study, cell, data, device=CPU)
    checkpoints = Checkpoints(folder, {"config_hash": "a", "dataset": "b"})
    while True:
        try:
            stop = stopped_at(stops)  # after the first step, then after the third
            parts, history = pretrain(
                study, cell, data, device=CPU, checkpoints=checkpoints, stop=stop
            )
            break
        except Interrupted:
            stops += 1
    assert all(entry["angular_step"] > 0 for entry in history)  # of the projector
    return whole.state_dict(), parts.state_dict(), stops


def check_same(whole: dict, parts: dict, stops: int) -> None:
    assert stops >= 2
    assert whole.keys() == parts.keys()
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())


def test_a_vit_that_is_stopped_ends_in_the_same_bytes(tiny_values, photos, tmp_path):
    check_same(*whole_and_parts(tiny_values, photos, tmp_path))


def as_rank(rank: int, folder, values: dict[str, Any], data) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    check_same(*whole_and_parts(values, data, folder / "state"))
    model, _ = make_backbone("timm/test_efficientnet", 3, 32, norm=SyncBatchNorm)
    assert any(isinstance(m, SyncBatchNorm) for m in model.modules())
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_vit_on_two_ranks_that_is_stopped_ends_in_the_same_bytes(tiny_values, photos, tmp_path):
    torch.multiprocessing.start_processes(
        as_rank, (tmp_path, tiny_values, photos), nprocs=2, start_method="spawn"
    )


def test_a_training_starts_from_a_file_whose_content_is_hashed(
    tiny_values, photos, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(5)
    model, _ = make_backbone(VIT, 3, 32)
    weights = model.state_dict()
    for name in ("a", "b"):
        save_file(weights, f"{name}.safetensors")
    hashes = []
    for name in ("a", "b"):
        study = of_a_vit(tiny_values, **{"network.weights": f"{name}.safetensors"})
        (cell,) = cells(study).values()
        hashes.append(config_hash(study.resolve(cell)))
    training = Training(study, cell, photos, CPU)
    for part in (training.encoder, training.method.key_encoder):
        assert all(torch.equal(weights[n], t) for n, t in part.backbone.state_dict().items())
    weights["norm.bias"] = weights["norm.bias"] + 1
    save_file(weights, "b.safetensors")
    hashes.append(config_hash(study.resolve(cell)))
    hashes.append(config_hash(of_a_vit(tiny_values).resolve(cell)))
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    (tmp_path / "results" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "results" / "tiny")  # where Snakemake's jobs run
    assert config_hash(study.resolve(cell)) == hashes[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("norm.bias"), "norm.bias: is missing"),
        (lambda w: w.update({"pos_embed": torch.rand(1, 197, 192)}), "pos_embed: is 1 x 197 x 192"),
        (lambda w: w.update({"blocks.99.x": torch.rand(2)}), "blocks.99.x: .* no such weights"),
    ],
)
def test_weights_that_do_not_match_are_one_line(
    change, message, tiny_values, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    weights = make_backbone(VIT, 3, 32)[0].state_dict()
    change(weights)
    save_file(weights, "w.safetensors")
    study = of_a_vit(tiny_values, **{"network.weights": "w.safetensors"})
    with pytest.raises(InputError, match=f"^network.weights: w.safetensors: {message}") as caught:
        cost.check_networks(study)
    assert "\n" not in str(caught.value)


def test_prepare_refuses_before_it_packs(tiny_values, tmp_path):
    import yaml

    values = with_values(tiny_values, {"network.backbone": VIT})  # the digits have 8 pixels
    (tmp_path / "vit.yaml").write_text(yaml.safe_dump(values))
    message = fails("prepare", "vit.yaml", "--out", "data", cwd=tmp_path)
    assert f"vit.yaml: network.backbone: {VIT}: gives no features of images of 1 x 8 x 8" in message
    assert not (tmp_path / "data").exists()
    done = eqco("plan", "vit.yaml", cwd=tmp_path)
    assert done.returncode == 1
