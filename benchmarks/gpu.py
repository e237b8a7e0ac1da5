"""Every figure of a GPU: its tests, its ceilings, training steps, the loss, a CIFAR-10 cell.

Needs Python, torch and torchvision, and no Snakemake. Runs gpu_tests, card, step, queue_loss,
cifar_cell, one after the other, and goes on where an earlier run of the same day has ended. Writes
``<date>-<GPU>.json``, and a table, ``.md``.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

from benchmarks._record import RESULTS, Record

STEP = ("step", "--device", "cuda", "--precision", "bfloat16", "--threads", "4", "--n", "3")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1500, help="begin no more after (1500)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the two files")
    parser.add_argument("--data", default="data/raw/cifar10-jpeg.tar.xz", help="CIFAR-10, images")
    parser.add_argument("programs", nargs="*", help="default: all")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    record, failed = Record(torch.device("cuda"), options.out), []
    for command in commands(options.data):
        if command in record or (options.programs and command[0] not in options.programs):
            continue
        if (left := end - time.monotonic()) < 5:
            break
        if not record.run(command, timeout=left):
            failed.append(" ".join(command))
    print(record.table())
    if failed:
        sys.exit("failed: " + "; ".join(failed))


def commands(data: str) -> list[list[str]]:
    """The command lines of all programs, what matters most first."""
    contenders = (
        ("--method", "simo"),
        ("--method", "moco", "--negatives", "16"),
        ("--method", "moco", "--negatives", "65536"),
        ("--method", "simclr"),
    )
    small = [[*STEP, "--network", "resnet18", *method] for method in contenders]
    large = [[*STEP, "--network", "resnet50", "--steps", "8", *method] for method in contenders]
    compiled = [
        [*STEP, "--network", network, "--method", "moco", "--negatives", "65536", "--compile"]
        for network in ("resnet18", "small")
    ]
    compiled += [
        [*STEP, "--network", "resnet50", "--steps", "8", "--method", "simclr", "--compile"]
    ]
    return [
        *(["gpu_tests"], ["card"], *small, ["queue_loss", "--device", "cuda"], *large),
        *(["cifar_cell", "--data", data], *compiled),
    ]
