"""Speed and memory of studies' recipes, on random images.

Trains the largest cell of each study on images of its size, in a process of its own. Prints one
JSON line per study: pairs per second over ``--n`` steps, and the peak memory of the host and of the
GPU in MB.
"""

import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks._measure import NOISE, arguments, noise, report
from eqco.store.provenance import peak_memory
from eqco.study.grid import Grid
from eqco.study.load import load_study
from eqco.training.step import Training


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
    with noise(max(2 * cell.batch, 1024), study.data.size, study.data.channels) as folder:
        training = Training(study.model_copy(update={"data": NOISE}), cell, folder, device)
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
