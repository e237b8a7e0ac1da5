"""What the diagnostics cost a step: python benchmarks/diagnostics.py [--study params/demo.yaml]

Trains the last cell of the study, in turn with the diagnostics of each epoch's last step and
without them, n times each in one process. Prints one JSON line: seconds of both, and their ratio.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import torch
from report import report

from eqco.data import sources
from eqco.losses import Negatives
from eqco.study.grid import cells
from eqco.study.study import load_study
from eqco.training.diagnostics import NAMES
from eqco.training.loop import pretrain
from eqco.training.step import Training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, default=Path("params/demo.yaml"))
    parser.add_argument("--n", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    study = load_study(arguments.study)
    cell = list(cells(study).values())[-1]
    times: dict[str, list[float]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        sources.prepare(study.data, Path(folder))
        for _ in range(arguments.n):
            for kind in times:
                diagnose = Training._diagnose if kind == "with" else nothing
                start = time.perf_counter()
                with mock.patch.object(Training, "_diagnose", diagnose):
                    pretrain(study, cell, Path(folder), device=torch.device("cpu"))
                times[kind].append(time.perf_counter() - start)
    ratio = statistics.median(times["with"]) / statistics.median(times["without"])
    report({"study": study.study, "unit": "s"}, times, ratio=round(ratio, 3))


def nothing(training: Training, positive: torch.Tensor, negatives: Negatives) -> torch.Tensor:
    """In place of a step's diagnostics."""
    return torch.zeros(len(NAMES))


if __name__ == "__main__":
    main()
