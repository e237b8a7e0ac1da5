"""One CIFAR-10 cell on a GPU, for as many epochs as fit into the given minutes.

SimCLR with all negatives, a ResNet-18, the recipe of params/negatives.yaml at batch 512 and without
split batch norm. Prints one JSON line: pairs per second, epochs, and the accuracies by kNN.
"""

import tempfile
import time
from pathlib import Path

import torch
import yaml

from benchmarks._measure import ROOT, arguments, packed, report, wait
from eqco.commands.pretrain import pretrain_cell
from eqco.evaluation.features import extract
from eqco.evaluation.knn import knn
from eqco.store.cells import ENCODER, read_encoder
from eqco.study.grid import Grid
from eqco.study.load import parse_study
from eqco.study.study import Study
from eqco.training.step import Training

STEPS = 30  # to learn the pace


def main() -> None:
    parser = arguments(__doc__, n=1)
    parser.add_argument("--minutes", type=float, default=4, help="of training (4)")
    parser.add_argument("--data", default="data/raw/cifar10-jpeg.tar.xz", help="image folder")
    options = parser.parse_args()
    device = torch.device("cuda")
    with packed(study_of(1, options.data).data) as folder:
        pace = seconds_per_epoch(study_of(1, options.data), folder, device)
        epochs = max(1, round(60 * options.minutes / pace))
        study = study_of(epochs, options.data)
        cell = next(iter(Grid(study).cells.values()))
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            places = (folder, Path(out), Path(out, "state"))
            pretrain_cell(study, cell, *places, device=device, checkpoint_seconds=300)
            seconds = time.perf_counter() - start
            encoder = read_encoder(Path(out, ENCODER))
            accuracies = knn(extract(encoder, folder, device=device), study.evaluate.knn)
    pairs = epochs * 50_000
    settings = {"epochs": epochs, "batch": cell.cell.batch, "minutes": f"{seconds / 60:.1f}"}
    report(settings, {"pairs_per_s": [pairs / seconds]}, **accuracies)


def study_of(epochs: int, data: str) -> Study:
    """The cell's study."""
    values = yaml.safe_load((ROOT / "params" / "negatives.yaml").read_text())
    values["data"] = {"kind": "image-folder", "name": "cifar10-jpeg", "path": data, "size": 32}
    values["network"]["batch_norm_groups"] = 1
    values["pretrain"] |= {
        "epochs": epochs,
        "batch": 512,
        "lr": 0.12,
        "warmup_epochs": 0.1 * epochs,
    }
    block = {"methods": ["simclr"], "negatives": "all", "margins": [0], "seeds": [0]}
    return parse_study({**values, "grid": [block]}, "cifar_cell")


def seconds_per_epoch(study: Study, folder: Path, device: torch.device) -> float:
    """The seconds of an epoch, by STEPS of its steps."""
    cell = next(iter(Grid(study).cells.values())).cell
    training = Training(study, cell, folder, device)
    for _ in range(5):
        training.advance()
    wait(device)
    start = time.perf_counter()
    for _ in range(STEPS):
        training.advance()
    wait(device)
    return (time.perf_counter() - start) / STEPS * training.steps_per_epoch
