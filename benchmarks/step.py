"""Pairs per second of the training loop, of its bare networks, and of lightly's loop.

Every side works on the same images, already decoded, with the same networks, batch, augmentation,
optimiser and threads. The sides run in turn, ``--n`` times ``--steps`` steps each. Prints one JSON
line with the median and the range of:

- ``pairs_per_s``: the training loop of `eqco pretrain`, data and augmentation included;
- ``bare_pairs_per_s``: the networks, the optimiser and the momentum update, on a fixed batch;
- ``networks_pairs_per_s``: forward and backward passes of the networks alone;
- ``lightly_pairs_per_s``, with ``--lightly``: lightly's training loop for this method, with its
  transforms and losses and a DataLoader of two workers.

A pair is the two views of one image.
"""

import itertools
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import torch

from benchmarks._measure import arguments, packed, report
from eqco.data.packed import MANIFEST
from eqco.store.provenance import peak_memory
from eqco.study.datasets import ImageFolder
from eqco.study.grid import Grid
from eqco.study.load import parse_study
from eqco.training.step import Training

NETWORKS = {
    "small": {"backbone": "conv5", "projector": [128, 64]},
    "resnet18": {
        "backbone": "resnet18",
        "stem": "small",
        "projector": [512, 128],
        "projector_norm": "none",
    },
}
JITTER = {"p": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}


def main() -> None:
    parser = arguments(__doc__, n=5, threads=2, device=True)
    parser.add_argument("--method", choices=("simclr", "moco", "simo"), required=True)
    parser.add_argument("--network", choices=NETWORKS, default="small")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--negatives", type=int, default=4096, help="K of moco; others use all")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--data", type=Path, required=True, help="image folder or packed dataset")
    parser.add_argument("--lightly", action="store_true", help="time lightly's loop too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    spec = ImageFolder(kind="image-folder", name="step", path=str(options.data), size=32)
    is_packed = (options.data / MANIFEST).exists()
    with nullcontext(options.data) if is_packed else packed(spec) as folder:
        compare(options, folder)


def compare(options: Namespace, folder: Path) -> None:
    """Run all sides in turn, on the packed images of a folder, and report."""
    batch, device = options.batch, torch.device(options.device)
    negatives = {"simclr": 2 * (batch - 1), "moco": options.negatives, "simo": batch - 1}
    block = {"methods": [options.method], "negatives": [negatives[options.method]]}
    study = parse_study(
        {
            "study": "step",
            "data": {"kind": "image-folder", "name": "step", "path": ".", "size": 32},
            "augment": {"crop": [0.08, 1.0], "flip": 0.5, "jitter": JITTER, "grayscale": 0.2},
            "network": NETWORKS[options.network],
            "pretrain": {"epochs": 1000, "batch": batch, "lr": 0.03, "ema": 0.99},
            "alpha": 256,
            "temperature": 0.2,
            "grid": [{**block, "margins": [0], "seeds": [0]}],
        },
        "step",
    )
    cell = next(iter(Grid(study).cells.values())).cell
    sides: dict[str, Callable[[], Iterator[None]]] = {}
    training = Training(study, cell, folder, device)
    sides["pairs_per_s"] = lambda: (training.advance() and None for _ in itertools.count())
    sides["bare_pairs_per_s"] = lambda: bare(training, update=True)
    sides["networks_pairs_per_s"] = lambda: bare(training, update=False)
    if options.lightly:
        from benchmarks import lightly_loop

        sides["lightly_pairs_per_s"] = lambda: lightly_loop.steps(study, cell, folder)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.n):
        for name, steps_of in sides.items():
            with closing(steps_of()) as steps:
                for _ in range(min(4, options.steps)):  # batches that workers have prefetched
                    next(steps)
                wait(device)
                start = time.perf_counter()
                for _ in range(options.steps):
                    next(steps)
                wait(device)
                rates[name].append(options.steps * batch / (time.perf_counter() - start))
    median = {name: statistics.median(values) for name, values in rates.items()}
    report(
        {
            **{name: getattr(options, name) for name in ("method", "network", "batch", "threads")},
            "negatives": cell.negatives,
            "steps": options.steps,
        },
        rates,
        of_bare=round(median["pairs_per_s"] / median["bare_pairs_per_s"], 3),
        on_top_of_networks=round(median["networks_pairs_per_s"] / median["pairs_per_s"] - 1, 3),
        peak_host_mb=peak_memory(device)["host"],
    )


def bare(training: Training, *, update: bool) -> Iterator[None]:
    """Steps of the method's networks on one batch; with ``update`` the weights change too."""
    method, optimizer = training.method, training.optimizer
    view1, view2 = training.views(0)
    momentum = hasattr(method, "key_encoder")
    trained = view1 if momentum else torch.cat([view1, view2])
    cotangent = None
    while True:
        z = method.encoder(trained)  # (N, D), or both views' (2N, D)
        if momentum:
            if update:
                method.update_key_encoder()
            with torch.no_grad():
                method.key_encoder(view2)
        if cotangent is None:
            cotangent = torch.randn_like(z) * 1e-6  # as good as a loss, and the weights stay finite
        optimizer.zero_grad()
        z.backward(cotangent)
        if update:
            optimizer.step()
        yield


def wait(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
