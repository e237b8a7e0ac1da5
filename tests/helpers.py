"""What tests share that is no fixture."""

import copy
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eqco import forkserver
from eqco.runtime.files import write
from eqco.store.archive import KEPT
from eqco.store.cells import SUMMARY, Files, evaluations, settings_of
from eqco.study.cell import Cell
from eqco.study.grid import Grid
from eqco.study.load import parse_study
from eqco.study.study import Study

ROOT = Path(__file__).parents[1]
EXECUTOR = "plugins/snakemake-executor-plugin-submitit"  # a distribution of its own as well
PLUGINS = ("plugins", EXECUTOR)  # on sys.path
PACKAGES = (
    "eqco",
    "plugins/snakemake_logger_plugin_eqco",
    f"{EXECUTOR}/snakemake_executor_plugin_submitit",
)
TINY = ROOT / "tests" / "tiny.yaml"
# for root, and silent where there is no network
CHROMIUM_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


def with_values(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of a study's values with ``{"pretrain.batch": 3}`` set; ``...`` removes a key."""
    changed = copy.deepcopy(values)
    for dotted, value in changes.items():
        *path, last = [int(part) if part.isdigit() else part for part in dotted.split(".")]
        target = changed
        for part in path:
            target = target[part]
        if value is ...:
            del target[last]
        else:
            target[last] = value
    return changed


def repeated(method: str, *case: Any) -> Any:
    """A case of a test of many steps; DHEL's is a further one: SimCo's with other negatives."""
    return pytest.param(method, *case, marks=[pytest.mark.slow] * (method == "dhel"))


def cells(study: Study) -> dict[str, Cell]:
    """The cells of a study's grid by path."""
    return {path: one.cell for path, one in Grid(study).cells.items()}


def random_encoder(path: Path, study: Study) -> None:
    """Save an untrained encoder of a study's first cell; its batch norm has seen noise."""
    import torch

    from eqco.networks.encoder import Encoder
    from eqco.store.cells import SavedEncoder, save_encoder

    cell = next(iter(cells(study).values()))
    torch.manual_seed(0)
    fixed = study.network.backbone.startswith("timm/")
    side = study.data.size if fixed else 16
    encoder = Encoder(study.network, study.data.channels, study.data.size)
    with torch.no_grad():
        for _ in range(3):
            encoder(2 * torch.randn(8, study.data.channels, side, side) + 1)
        for tensor in encoder.parameters():
            tensor.add_(torch.randn_like(tensor), alpha=0.01)
    save_encoder(path, SavedEncoder(study.resolve(cell), "a:b", encoder.state_dict()))


def copy_project(folder: Path, *more: str) -> None:
    """Copy the package, the workflow and other parts of the project into ``folder``."""
    for name in ("eqco", "profiles", "workflow", *more):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("Snakefile", "slurm"):
        shutil.copy(ROOT / name, folder / name, follow_symlinks=False)


def python_path(folder: Path) -> str:
    """PYTHONPATH for a copy of the project with its plugins."""
    return os.pathsep.join(map(str, (folder, *(folder / name for name in PLUGINS))))


def cold(folder: Path) -> dict[str, str]:
    """An environment for the package that lies in ``folder``, without the tests' fork server."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment.pop(forkserver.VARIABLE, None)
    return environment


def image_folder(folder: Path, *, classes: int, train: int, test: int) -> Path:
    """Make an image folder of scikit-learn's digits, drawn large, in colour and in many shapes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    random = np.random.default_rng(0)
    for label in range(classes):
        images = digits.images[digits.target == label % 10]
        for split, rows in (("train", images[:train]), ("test", images[-test:])):
            place = folder / split / f"class-{label:02}"
            place.mkdir(parents=True)
            for i, image in enumerate(rows):
                # beyond ten classes the same digits in the colours' negative
                gray = (image if label < 10 else 16 - image) * (255 / 16)
                tinted = gray[:, :, None] * random.uniform(0.5, 1, 3)  # (8, 8, 3)
                size = tuple(random.integers(24, 97, 2).tolist())
                pixels = Image.fromarray(tinted.astype(np.uint8))
                pixels.resize(size, Image.Resampling.BICUBIC).save(place / f"{i}.jpg", quality=95)
    return folder


def make_up_cells(study: Study, results: Path) -> None:
    """Write what would be kept of a finished study, with made-up numbers."""
    random = Random(0)
    lines = []
    for path, cell in Grid(study).cells.items():
        start, fall = random.uniform(3, 5), random.uniform(30, 60)
        history = [
            {
                "epoch": epoch,
                "loss": start * math.exp(-epoch / fall) + random.gauss(1, 0.02),
                "weight": random.uniform(0.2, 0.9),
                "positive": 1 - math.exp(-epoch / fall) + random.gauss(0, 0.01),
                "negative": random.gauss(0, 0.02),
                "gradient": 3 * math.exp(-epoch / fall),
                "images_per_s": random.gauss(5000, 200),
            }
            for epoch in range(1, study.pretrain.epochs + 1)
        ]
        summary = {
            "dataset": "made up",
            "seconds": random.gauss(100, 5),
            "images_per_s": 5000.0,
            "history": history,
            "peak_memory_mb": {"host": 500.0, "device": None},
            "failed": None,
            "provenance": {"revision": "", "versions": {}, "hardware": "none", "threads": 1},
        }
        files: Files = {SUMMARY: summary}
        accuracy = random.gauss(80 + math.log2(cell.cell.negatives), 1)
        for name in evaluations(study.evaluate):
            rated = {
                protocol: accuracy + random.gauss(0, 0.3)
                for protocol in study.protocols
                if protocol.startswith("knn") == (name == "knn.json")
            }
            files[name] = {"settings": settings_of(study.evaluate, name), "accuracy": rated}
        made_by = {"config_hash": cell.hash, "encoder": path}
        whole = {name: {**made_by, **content} for name, content in files.items()}
        lines.append(json.dumps({"cell": path, **whole}) + "\n")
    write(results / KEPT, "".join(lines))


def study_of_1000_cells(values: dict[str, Any]) -> Study:
    """Five methods, five K, two margins, τ and learning rates, five seeds; 200 epochs."""
    block = {
        "methods": ["simclr", "moco", "simo", "simmoco", "simco"],
        "negatives": [1, 4, 16, 64, 255],
        "margins": [0, "eqco"],
        "temperatures": [0.1, 0.2],
        "lrs": [0.01, 0.03],
        "seeds": [0, 1, 2, 3, 4],
    }
    return parse_study(with_values(values, {"pretrain.epochs": 200, "grid": [block]}), "large.yaml")


def idx(array: np.ndarray) -> bytes:
    """The IDX format of the MNIST files: magic with the number of axes, their lengths, bytes."""
    head = [0x800 + array.ndim, *array.shape]
    return b"".join(n.to_bytes(4, "big") for n in head) + array.astype(np.uint8).tobytes()


def output_of(command: Sequence[str | Path], **kwargs: Any) -> str:
    """What a command prints, errors included; it has to succeed."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **kwargs,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def eqco(*arguments: object, **kwargs) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eqco", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)


def fails(*arguments: object, **kwargs) -> str:
    done = eqco(*arguments, **kwargs)
    assert done.returncode == 1, done
    assert done.stderr.startswith("eqco: ")
    assert done.stderr.count("\n") == 1
    return done.stderr
