"""Speed and memory of recipes: python benchmarks/recipes.py params/moco-cifar10-demo.yaml [...]

Trains the largest cell of each study on random images of its size, in a process of its own. Prints
one JSON line a study: pairs per second over ``--steps`` steps, and the peak memory of the host and
of the GPU in MB.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from report import report

from eqco.data import packed as data
from eqco.store.provenance import peak_memory
from eqco.study.grid import cells
from eqco.study.study import ImageFolder, Study, load_study
from eqco.training.step import Training

NOISE = ImageFolder(kind="image-folder", name="noise", path=".", size=4)  # any number of images


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if len(arguments.studies) > 1:
        for study in arguments.studies:
            more = [f"--{key}={getattr(arguments, key)}" for key in ("steps", "threads", "device")]
            subprocess.run([sys.executable, __file__, study, *more], check=True)
        return
    torch.set_num_threads(arguments.threads)
    study, device = load_study(arguments.studies[0]), torch.device(arguments.device)
    cell = max(cells(study).values(), key=lambda cell: (cell.batch, cell.negatives))
    with tempfile.TemporaryDirectory() as folder:
        random_images(study, max(2 * cell.batch, 1024), Path(folder))
        training = Training(study.model_copy(update={"data": NOISE}), cell, Path(folder), device)
        rates = []
        for step in range(arguments.steps + 1):
            start = time.perf_counter()
            training.advance().item()
            if step:  # the first makes the optimiser's state
                rates.append(cell.batch / (time.perf_counter() - start))
    memory = {f"peak_{name}_mb": mb for name, mb in peak_memory(device).items() if mb is not None}
    settings = {"study": study.study, "method": cell.method, "network": study.network.backbone}
    more = {"batch": cell.batch, "negatives": cell.negatives, "threads": arguments.threads}
    report({**settings, **more}, {"pairs_per_s": rates}, **memory)


def random_images(study: Study, count: int, folder: Path) -> None:
    """Pack so many images of noise, of the study's size and channels."""
    shape = (count, study.data.channels, study.data.size, study.data.size)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    split = data.Packed(images, np.zeros(count, np.int64), ["noise"])
    data.pack({"train": split, "test": split}, "random", folder)


if __name__ == "__main__":
    main()
