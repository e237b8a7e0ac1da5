"""Parts that the programs share: options, packed images, and the line that reports a figure."""

import json
import statistics
import tempfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eqco.data.sources import prepare
from eqco.study.datasets import Data

ROOT = Path(__file__).parents[1]
DEMO = Path("params/demo.yaml")


def arguments(
    doc: str | None,
    *,
    n: int,
    threads: int | None = None,
    device: bool = False,
    study: bool = False,
) -> ArgumentParser:
    """A parser with the shared options; a program adds its own.

    Args:
        doc: the program's docstring, its help.
        n: default of ``--n``, the number of runs.
        threads: default of ``--threads``, if the program has it.
        device: whether it has ``--device``.
        study: whether it has ``--study``.
    """
    parser = ArgumentParser(description=doc, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=n, help=f"runs ({n})")
    if threads is not None:
        parser.add_argument("--threads", type=int, default=threads, help=f"CPU threads ({threads})")
    if device:
        parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    if study:
        parser.add_argument("--study", type=Path, default=DEMO, help=f"study file ({DEMO})")
    return parser


@contextmanager
def packed(data: Data) -> Iterator[Path]:
    """A temporary folder with the packed images of a study's dataset."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(data, Path(folder))
        yield Path(folder)


def report(settings: dict, values: dict[str, list[float]], **derived: float) -> None:
    """Print one JSON line: the settings, each figure's median and range over its runs, and n."""
    medians = {name: _short(statistics.median(runs)) for name, runs in values.items()}
    ranges = {name: [_short(min(runs)), _short(max(runs))] for name, runs in values.items()}
    n = min(len(runs) for runs in values.values())
    print(json.dumps({**settings, **medians, **derived, "n": n, "ranges": ranges}), flush=True)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
