"""Pairs per second of the training loop, of its bare networks, and of lightly's loop.

Every side works on the same images of noise, already decoded, with the same networks, batch,
augmentation, optimiser and threads. The sides run in turn, ``--n`` times ``--steps`` steps each.
Prints one JSON line with the median and the range of:

- ``pairs_per_s``: the training loop of `eqco pretrain`, data and augmentation included;
- ``bare_pairs_per_s``: the networks, the optimiser and the momentum update, on a fixed batch;
- ``networks_pairs_per_s``: forward and backward passes of the networks alone;
- ``compiled_pairs_per_s``, ``graphed_pairs_per_s``, with ``--compile``: the training loop with its
  encoders compiled by torch, without and with CUDA graphs;
- ``lightly_pairs_per_s``, with ``--lightly``: lightly's training loop for this method, with its
  transforms and losses and a DataLoader of two workers.

A pair is the two views of one image. Of a GPU also the training loop's TFLOP/s in the networks, as
a share of a large product's in the same process.
"""

import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._measure import NOISE, arguments, noise, report, wait
from benchmarks.card import product_tflops
from eqco.store.provenance import peak_memory
from eqco.study.cell import Cell
from eqco.study.grid import Grid
from eqco.study.load import parse_study
from eqco.study.study import Study
from eqco.training.step import Training

NETWORKS = {
    "small": {"backbone": "conv5", "projector": [128, 64]},
    "resnet18": {
        "backbone": "resnet18",
        "stem": "small",
        "projector": [512, 128],
        "projector_norm": "none",
    },
    "resnet50": {"backbone": "resnet50", "projector": [2048, 128], "projector_norm": "none"},
}
SIZES = {"small": 32, "resnet18": 32, "resnet50": 224}
JITTER = {"p": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}


def main() -> None:
    parser = arguments(__doc__, n=5, threads=2, device=True)
    parser.add_argument("--method", choices=("simclr", "moco", "simo"), required=True)
    parser.add_argument("--network", choices=NETWORKS, default="small")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--negatives", type=int, default=4096, help="K of moco; others use all")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--compile", action="store_true", help="time compiled encoders too")
    parser.add_argument("--lightly", action="store_true", help="time lightly's loop too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with noise(max(2048, 2 * options.batch), SIZES[options.network]) as folder:
        compare(options, folder)


def compare(options: Namespace, folder: Path) -> None:
    """Run all sides in turn, on the packed images of a folder, and report."""
    batch, device = options.batch, torch.device(options.device)
    study, cell = parts(options)
    training = Training(study, cell, folder, device)
    sides: dict[str, Callable[[], Iterator[None]]] = {
        "pairs_per_s": lambda: whole(training),
        "bare_pairs_per_s": lambda: bare(training, update=True),
        "networks_pairs_per_s": lambda: bare(training, update=False),
    }
    if options.compile:
        for name, mode in (("compiled", "default"), ("graphed", "reduce-overhead")):
            compiled = Training(study, cell, folder, device)
            for encoder in ("encoder", "key_encoder"):
                if hasattr(compiled.method, encoder):
                    getattr(compiled.method, encoder).compile(mode=mode)
            sides[f"{name}_pairs_per_s"] = lambda compiled=compiled: whole(compiled)
    if options.lightly:
        from benchmarks import lightly_loop

        sides["lightly_pairs_per_s"] = lambda: lightly_loop.steps(study, cell, folder)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    memory: dict[str, float | None] = {}
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
            memory = memory or peak_memory(device)  # of the training loop alone
    median = {name: statistics.median(values) for name, values in rates.items()}
    derived = {f"peak_{place}_mb": mb for place, mb in memory.items() if mb is not None}
    if device.type == "cuda":
        dtype = getattr(torch, options.precision)
        tflops = median["pairs_per_s"] / batch * step_tflop(training)
        derived |= {"tflops": round(tflops, 1)}
        derived |= {"of_product": round(tflops / product_tflops(device, dtype), 3)}
    named = ("method", "network", "batch", "precision", "device", "threads")
    report(
        {
            **{name: getattr(options, name) for name in named},
            "negatives": cell.negatives,
            "steps": options.steps,
        },
        rates,
        of_bare=round(median["pairs_per_s"] / median["bare_pairs_per_s"], 3),
        on_top_of_networks=round(median["networks_pairs_per_s"] / median["pairs_per_s"] - 1, 3),
        **derived,
    )


def parts(options: Namespace) -> tuple[Study, Cell]:
    """A study of one cell, and the cell, by the options."""
    negatives = [options.negatives] if options.method == "moco" else "all"
    block = {"methods": [options.method], "negatives": negatives}
    study = parse_study(
        {
            "study": "step",
            "data": NOISE.model_copy(update={"size": SIZES[options.network]}).model_dump(),
            "augment": {"crop": [0.08, 1.0], "flip": 0.5, "jitter": JITTER, "grayscale": 0.2},
            "network": NETWORKS[options.network],
            "pretrain": {
                **{"epochs": 1000, "batch": options.batch, "lr": 0.03, "ema": 0.99},
                "precision": options.precision,
            },
            "alpha": 256,
            "temperature": 0.2,
            "grid": [{**block, "margins": [0], "seeds": [0]}],
        },
        "step",
    )
    return study, next(iter(Grid(study).cells.values())).cell


def whole(training: Training) -> Iterator[None]:
    """Steps of the training loop."""
    while True:
        torch.compiler.cudagraph_mark_step_begin()
        training.advance()
        yield


def step_tflop(training: Training) -> float:
    """Floating-point operations in the networks of one step, in 10^12."""
    with closing(bare(training, update=False)) as steps:
        next(steps)
        with FlopCounterMode(display=False) as counter:
            next(steps)
    return counter.get_total_flops() / 1e12


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
