"""Speed and memory of studies' recipes, on random images.

Trains the largest cell of each study on images of its size, in a process of its own. Prints one
JSON line per study: pairs per second over ``--n`` steps, and the peak memory of the host and of the
GPU in MB.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks._measure import arguments, report
from eqco.data import packed as data
from eqco.store.provenance import peak_memory
from eqco.study.datasets import ImageFolder
from eqco.study.grid import Grid
from eqco.study.load import load_study
from eqco.study.study import Study
from eqco.training.step import Training

NOISE = ImageFolder(kind="image-folder", name="noise", path=".", size=4)  # any number of images


def main() -> None:
    parser = arguments(__doc__, n=3, threads=2, device=True)
    parser.add_argument("studies", type=Path, nargs="+")
    options = parser.parse_args()
    if len(options.studies) > 1:
        for study in options.studies:  # a process each: peak memory is a process's
            same = [f"--{key}={getattr(options, key)}" for key in ("n", "threads", "device")]
            command = [sys.executable, "-m", "benchmarks", "recipes", str(study), *same]
            subprocess.run(command, check=True)
        return
    torch.set_num_threads(options.threads)
    study, device = load_study(options.studies[0]), torch.device(options.device)
    cell = max(
        (one.cell for one in Grid(study).cells.values()),
        key=lambda cell: (cell.batch, cell.negatives),
    )
    with tempfile.TemporaryDirectory() as folder:
        pack_noise(study, max(2 * cell.batch, 1024), Path(folder))
        training = Training(study.model_copy(update={"data": NOISE}), cell, Path(folder), device)
        rates = []
        for step in range(options.n + 1):
            start = time.perf_counter()
            training.advance().item()
            if step:  # the first step makes the optimiser's state
                rates.append(cell.batch / (time.perf_counter() - start))
    memory = {f"peak_{name}_mb": mb for name, mb in peak_memory(device).items() if mb is not None}
    settings = {"study": study.study, "method": cell.method, "network": study.network.backbone}
    more = {"batch": cell.batch, "negatives": cell.negatives, "threads": options.threads}
    report({**settings, **more}, {"pairs_per_s": rates}, **memory)


def pack_noise(study: Study, count: int, folder: Path) -> None:
    """Pack ``count`` images of noise, of the study's size and channels."""
    shape = (count, study.data.channels, study.data.size, study.data.size)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    split = data.Packed(images, np.zeros(count, np.int64), ["noise"])
    data.pack({"train": split, "test": split}, "random", folder)
