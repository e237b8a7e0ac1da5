"""Every recipe in params/, quickly: a dry run as it is, and from its images to a table."""

import os
import re
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pandas as pd
import public
import pytest
import yaml
from helpers import ROOT, cells, copy_project, image_folder, with_values

from eqco.study.load import load_study
from eqco.study.quick import shrink

pytestmark = pytest.mark.usefixtures("fork_server")

STUDIES = sorted(ROOT.glob("params/*.yaml"))
# of a paper or at its size; the others are small as they are, and run elsewhere in tests and docs
RECIPES = [path for path in STUDIES if load_study(path).network.backbone != "conv5"]
# that differ in kind, with a network that takes seconds
KINDS = {
    # CIFAR's archive, a queue and split batch norm
    "moco-cifar10-demo": {"network.stem": "large"},
    # JPEGs, a probe on views and a support set
    "nnclr-dcl-imagenet": {"network.backbone": "conv5", "network.predictor": 64},
}

PLANNED = {*KINDS, "weighting-or-rate-gpu", "controls", "flatness"}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project with small image folders and archives for its studies."""
    folder = tmp_path_factory.mktemp("quick")
    copy_project(folder, "params", "published")
    images = image_folder(folder / "images", classes=10, train=8, test=4)
    for study in map(load_study, STUDIES):
        path = folder / getattr(study.data, "path", "images")
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name.endswith(".tar.xz"):
            with tarfile.open(path, "w:xz") as archive:
                archive.add(images, ".")
        else:
            path.symlink_to(images)
    for classes, make in ((10, public.cifar10), (100, public.cifar100)):
        make(folder / "raw", *(public.random_split(100, classes, seed) for seed in (0, 1)))
    for path in folder.glob("params/*.yaml"):  # no test needs the network
        offline = path.read_text().replace("kind: torchvision", "kind: torchvision\n  root: raw")
        path.write_text(offline)
    return folder


def snakemake(folder: Path, *arguments: str) -> str:
    command = ["snakemake", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_quick_is_a_study_that_keeps_methods_and_losses(path):
    study = load_study(path)
    small = shrink(study)
    assert small.network == study.network
    assert small.pretrain.precision == "float32"  # many CPUs emulate bfloat16
    assert small.augment == study.augment
    for name in ("method", "loss", "margin"):
        kept, all_ = ({getattr(c, name) for c in cells(s).values()} for s in (small, study))
        assert kept == all_
    assert len(cells(small)) <= len(cells(study))


def test_quick_leaves_out_shares_of_labels(study_with):
    study = study_with({"evaluate.linear_lbfgs.labels": [0.01]})
    assert "linear-lbfgs-labels~0.01" in study.protocols
    assert shrink(study).protocols == ["linear-lbfgs", "linear", "knn"]


@pytest.mark.parametrize(
    "path",
    [
        # a plan is the same for others: one of each kind, with a selection and with claims
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem not in PLANNED))
        for path in STUDIES
    ],
)
def test_a_dry_run_as_it_is(path, project):
    output = snakemake(project, "-n", "--configfile", f"params/{path.name}")
    study = load_study(path)
    count = len(cells(study))
    if study.select:  # the others are known when these have run
        count = sum(cell.seed in study.select.seeds for cell in cells(study).values())
    assert re.search(rf"^pretrain +{count}$", output, re.M)


def run_quick(project: Path, path: Path) -> None:
    small, start = shrink(load_study(path)), time.monotonic()
    options = ["--configfile", str(path), "--config", "quick=true"]
    snakemake(project, *options, "--cores", "2")
    print(f"{path.stem}: {len(cells(small))} cells in {time.monotonic() - start:.0f} s")
    folder = project / "results" / small.study
    table = pd.read_csv(folder / "table.csv")
    assert len(table) == len(cells(small)) * len(small.protocols)
    assert table["mean"].between(0, 100).all()
    shutil.rmtree(folder / "cells")  # ResNet-50s


@pytest.mark.parametrize("name", KINDS)
def test_a_quick_run_of_a_smaller_network_from_images_to_table(name, project):
    values = yaml.safe_load((project / f"params/{name}.yaml").read_text())
    values = with_values(values, {"study": f"{name}-smaller", **KINDS[name]})
    path = project / f"params/{name}-smaller.yaml"
    path.write_text(yaml.safe_dump(values))
    run_quick(project, path)


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_quick_run_from_images_to_table(path, project):
    run_quick(project, project / "params" / path.name)


@pytest.mark.slow
def test_two_ranks_run_a_recipe_from_images_to_table(project):
    options = ["--configfile", "params/simo-imagenet.yaml", "--config", "quick=true"]
    more = ["--set-resources", "pretrain:gpus=2", "linear_eval:gpus=2", "--cores", "2"]
    folder = project / "results" / "simo-imagenet-quick"
    shutil.rmtree(folder, ignore_errors=True)
    snakemake(project, *options, *more)
    assert len(pd.read_csv(folder / "table.csv")) == 3 * 2
    for log in folder.glob("cells/**/*.log"):
        assert "Traceback" not in log.read_text()
