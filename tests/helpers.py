"""What tests share that is no fixture."""

import copy
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

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
