"""Whether small cells fill a machine: python benchmarks/packing.py [--study params/demo.yaml]

Trains copies of one cell at once, as the grid's jobs do: 1 with two threads, then 1, 2 and 4 with
one thread each, in turn, n times; on a GPU all share it. Prints one JSON line: pairs per second of
all copies together, from when they all train until the first has done its ``--steps``.
"""

import argparse
import tempfile
import time
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import torch
from report import report
from torch import multiprocessing

from eqco.data import sources
from eqco.study.grid import cells
from eqco.study.study import load_study
from eqco.training.step import Training

PACKINGS = {
    "one_cell_two_threads": (1, 2),
    "one_cell": (1, 1),
    "two_cells": (2, 1),
    "four_cells": (4, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", type=Path, default=Path("params/demo.yaml"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--n", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    rates: dict[str, list[float]] = {name: [] for name in PACKINGS}
    with tempfile.TemporaryDirectory() as folder:
        sources.prepare(load_study(arguments.study).data, Path(folder))
        for _ in range(arguments.n):
            for name, (processes, threads) in PACKINGS.items():
                ready, done, queue = context.Barrier(processes), context.Event(), context.Queue()
                shared = (arguments, Path(folder), threads, ready, done)
                started = [
                    context.Process(target=train, args=(*shared, queue)) for _ in range(processes)
                ]
                for process in started:
                    process.start()
                rates[name].append(sum(queue.get() for _ in started))
                for process in started:
                    process.join()
    report({"study": arguments.study.stem, "unit": "pairs/s"}, rates)


def train(
    arguments: argparse.Namespace,
    folder: Path,
    threads: int,
    ready: Barrier,
    done: Event,
    queue: "multiprocessing.Queue[float]",
) -> None:
    """Put this copy's pairs per second in the queue."""
    torch.set_num_threads(threads)
    study = load_study(arguments.study)
    cell = list(cells(study).values())[-1]
    training = Training(study, cell, folder, torch.device(arguments.device))
    for _ in range(5):
        training.advance().item()
    ready.wait()
    start, steps = time.perf_counter(), 0
    while not done.is_set():
        training.advance().item()  # waits for a device
        steps += 1
        if steps >= arguments.steps:
            done.set()
    queue.put(steps * cell.batch / (time.perf_counter() - start))


if __name__ == "__main__":
    main()
