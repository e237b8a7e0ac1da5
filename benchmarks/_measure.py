"""Parts that the programs share: options, packed images, and the line that reports a figure."""

import json
import statistics
import tempfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from eqco.data.packed import Packed, pack
from eqco.data.sources import prepare
from eqco.study.datasets import Data, ImageFolder

ROOT = Path(__file__).parents[1]
DEMO = Path("params/demo.yaml")
NOISE = ImageFolder(kind="image-folder", name="noise", path=".", size=4)  # any number of images


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


@contextmanager
def noise(count: int, size: int, channels: int = 3) -> Iterator[Path]:
    """A temporary folder with ``count`` packed images of noise, to be read as ``NOISE``."""
    images = np.random.default_rng(0).integers(0, 256, (count, channels, size, size), np.uint8)
    split = Packed(images, np.zeros(count, np.int64), ["noise"])
    with tempfile.TemporaryDirectory() as folder:
        pack({"train": split, "test": split}, "random", Path(folder))
        yield Path(folder)


def draw_jpegs(out: Path, count: int) -> None:
    """Write images of noise, stronger in coarse grains, weaker in the colours."""
    out.mkdir(parents=True)
    generator, size = torch.Generator().manual_seed(0), (375, 500)
    for i in range(count):
        image = torch.full((1, 3, *size), 128.0)
        for octave in range(8):
            shape = [1 + (side >> octave) for side in size]
            gray = torch.randn(1, 1, *shape, generator=generator)
            grains = gray + 0.3 * torch.randn(1, 3, *shape, generator=generator)
            image += 8 * 1.3**octave * interpolate(grains, size, mode="bilinear")
        pixels = image[0].clamp(0, 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(out / f"{i:06}.jpg", quality=95)


def wait(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report(settings: dict, values: dict[str, list[float]], **derived: float) -> None:
    """Print one JSON line: the settings, each figure's median and range over its runs, and n."""
    medians = {name: _short(statistics.median(runs)) for name, runs in values.items()}
    ranges = {name: [_short(min(runs)), _short(max(runs))] for name, runs in values.items()}
    n = min(len(runs) for runs in values.values())
    print(json.dumps({**settings, **medians, **derived, "n": n, "ranges": ranges}), flush=True)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
