"""What tests share that is no fixture."""

import copy
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "data" / "tiny.yaml"


def with_values(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of a study's values with ``{"pretrain.batch": 3}`` set; ``...`` removes a key."""
    changed = copy.deepcopy(values)
    for dotted, value in changes.items():
        *path, last = [int(part) if part.isdigit() else part for part in dotted.split(".")]
        target = changed
        for part in path:
            target = target[part]
        if value is ...:
            del target[last]
        else:
            target[last] = value
    return changed


def copy_project(folder: Path, *more: str) -> None:
    """Copy the package, the workflow and other parts of the project into ``folder``."""
    for name in ("eqco", "workflow", *more):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)


def processes_in(folder: Path) -> list[psutil.Process]:
    """Every process whose working directory is ``folder`` or lies in it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
    return found


def image_folder(folder: Path, *, classes: int, train: int, test: int) -> Path:
    """Make an image folder of scikit-learn's digits, drawn large, in colour and in many shapes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    random = np.random.default_rng(0)
    for label in range(classes):
        images = digits.images[digits.target == label % 10]
        for split, rows in (("train", images[:train]), ("test", images[-test:])):
            place = folder / split / f"class-{label:02}"
            place.mkdir(parents=True)
            for i, image in enumerate(rows):
                # beyond ten classes the same digits in the colours' negative
                gray = (image if label < 10 else 16 - image) * (255 / 16)
                tinted = gray[:, :, None] * random.uniform(0.5, 1, 3)  # (8, 8, 3)
                size = tuple(random.integers(24, 97, 2).tolist())
                pixels = Image.fromarray(tinted.astype(np.uint8))
                pixels.resize(size, Image.Resampling.BICUBIC).save(place / f"{i}.jpg", quality=95)
    return folder
