"""The cost of a study: sizes against real files, hours against the arithmetic of the sources."""

import subprocess
import sys

import pytest
import torch
from helpers import ROOT, cells

from eqco.commands import studies
from eqco.errors import InputError
from eqco.methods import build
from eqco.networks.encoder import Encoder
from eqco.report.plan import estimate, lines
from eqco.store.cells import SavedEncoder, save_encoder
from eqco.store.checkpoint import Checkpoints
from eqco.study.grid import Grid
from eqco.study.load import load_study
from eqco.study.methods import METHODS
from eqco.training.cost import forward_units, saved_bytes
from eqco.training.loop import pretrain

pytestmark = pytest.mark.usefixtures("fork_server")

SPEEDS = ROOT / "published" / "speeds.csv"


@pytest.mark.parametrize("method", METHODS)
def test_momentum_methods_have_a_key_encoder(method, study_with):
    grid = {"methods": [method], "negatives": [16], "margins": [0], "seeds": [0]}
    study = study_with({"pretrain.queue": 64, "grid": [grid]})
    (cell,) = cells(study).values()
    model = build(cell, Encoder(study.network, 1), study.pretrain)
    assert hasattr(model, "key_encoder") == METHODS[method].momentum
    assert forward_units(method, symmetric=False) == (4 if METHODS[method].momentum else 6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_sizes_are_those_of_the_files(study_with, digits, tmp_path, optimizer):
    grid = {"methods": ["moco"], "negatives": [512], "margins": [0], "seeds": [0]}
    study = study_with({"pretrain.epochs": 1, "grid": [grid], "pretrain.optimizer": optimizer})
    (cell,) = cells(study).values()
    checkpoints = Checkpoints(tmp_path / "state", {})
    method, _ = pretrain(
        study,
        cell,
        digits,
        device=torch.device("cpu"),
        checkpoints=checkpoints,
        seconds_between_checkpoints=0,
    )
    encoder, key = (method.get_submodule(name).state_dict() for name in ("encoder", "key_encoder"))
    save_encoder(tmp_path / "encoder", SavedEncoder({}, "", encoder, key=key))
    planned = saved_bytes(study, cell)
    written = max(path.stat().st_size for path in (tmp_path / "state").iterdir())
    assert 0 <= (tmp_path / "encoder").stat().st_size - planned[0] < 2 * 4096  # names and shapes
    assert 0 <= written - planned[1] < 16384


def test_hours_are_those_of_the_source(tmp_path):
    """MoCo's 200 epochs on ImageNet took 53 hours on 8 GPUs, as each of SiMo's five cells would."""
    cost = estimate(
        Grid(load_study(ROOT / "params/simo-imagenet.yaml")), 1_281_167, tmp_path, SPEEDS
    )
    (moco,) = (entry for entry in cost.training if "facebookresearch" in entry.sources[0])
    assert moco.hours == pytest.approx(5 * 53 * 8, rel=0.01)
    assert (
        "training",
        f"{moco.hours:,.1f} hours on {moco.hardware}, by {moco.sources[0]}",
    ) in lines(cost)


def test_a_probe_on_views_is_counted(tmp_path):
    """A forward pass of every image in each of its 90 epochs, a quarter of a pair's cost."""
    cost = estimate(
        Grid(load_study(ROOT / "params/simo-imagenet.yaml")), 1_281_167, tmp_path, SPEEDS
    )
    (moco,) = (entry for entry in cost.probing if "facebookresearch" in entry.sources[0])
    assert moco.hours == pytest.approx(5 * 90 * 1_281_167 / 4 / 168 / 3600, rel=0.01)


def eqco(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eqco", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command():
    done = eqco("plan", "params/demo.yaml")
    assert done.returncode == 0
    assert "cells    50, each a training and 2 evaluations" in done.stdout
    assert "pairs    1,280,000: 1,297 images, 20 epochs" in done.stdout


def test_images_to_validate_are_not_trained_on(tmp_path):
    study = tmp_path / "s.yaml"
    text = (ROOT / "params/simo-imagenet.yaml").read_text()
    study.write_text(text.replace("data:\n", "data:\n  validation: 50000\n"))
    cost = estimate(Grid(load_study(study)), 1_281_167, tmp_path, SPEEDS)
    assert cost.images == 1_231_167
    assert cost.pairs == 5 * 200 * (1_231_167 // 256 * 256)
    assert ("storage", "about 37 GB of JPEGs") in lines(cost)
    with pytest.raises(InputError, match=r"data.validation: 50000: the data has 50000 training im"):
        studies.plan(study, 50_000, SPEEDS)


def test_equal_hours_are_one_line():
    done = eqco("plan", "params/negatives.yaml", "--images", "50000")
    equal = [line for line in done.stdout.splitlines() if "2 CPU cores" in line]
    assert len(equal) == 1
    assert equal[0].endswith("records.md (moco) and benchmarks/records.md (simclr)")


def test_an_unknown_number_of_images_is_asked_for(tmp_path):
    study = tmp_path / "s.yaml"
    text = (ROOT / "params/simo-imagenet.yaml").read_text().replace("name: imagenet", "name: none")
    study.write_text(text)
    done = eqco("plan", str(study))
    assert done.returncode == 1
    assert done.stderr == (
        f"eqco: {study}: the number of images in data/none is unknown; give it with --images\n"
    )
    assert "37 GB of JPEGs" in eqco("plan", str(study), "--images", "1281167").stdout
