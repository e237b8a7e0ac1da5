"""Every figure of this machine: runs step, recipes, queue_loss, cell and demo.

They run one after the other (about half an hour on two cores); nothing else should run beside them.
Writes their output to ``benchmarks/results/<date>-<machine>.json``, and a table, ``.md``. If only
some programs are named, the day's figures of the others stay.
"""

import argparse
import sys

import torch

from benchmarks._measure import ROOT
from benchmarks._record import Record

PROGRAMS = ("step", "recipes", "queue_loss", "cell", "demo")
RECIPES = ("moco-cifar10-demo", "simclr-dcl-cifar10", "simco-cifar100")
LARGE = ("--network", "resnet18", "--n", "3", "--steps", "1")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("programs", nargs="*", help="default: all")
    options = parser.parse_args()
    chosen = set(options.programs or PROGRAMS)
    if unknown := chosen - set(PROGRAMS):
        sys.exit(f"benchmarks machine: {' '.join(unknown)}: allowed: {' '.join(PROGRAMS)}")
    record = Record(torch.device("cpu"))
    failed = [command for command in commands() if command[0] in chosen and not record.run(command)]
    print(record.table())
    sys.exit(bool(failed))


def commands() -> list[list[str]]:
    """The command lines of all programs."""
    steps = []
    for size in ((), LARGE):
        for method in ("simclr", "moco", "simo"):
            peer = [] if method == "simo" else ["--lightly"]
            steps.append(["step", "--method", method, *size, *peer])
    for k in ("16", "65536"):
        steps.append(["step", "--method", "moco", "--negatives", k, *LARGE])
    recipes = [str(ROOT / "params" / f"{name}.yaml") for name in RECIPES]
    return [*steps, ["recipes", *recipes], *([program] for program in PROGRAMS[2:])]
