"""A grid of one configuration, on a cluster and on this machine alone."""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import yaml
from helpers import TINY, copy_project
from project import Project, processes_in

OF_THE_STUDY = ("--configfile", "tiny.yaml")
SMALL = (
    *(*OF_THE_STUDY, "--latency-wait", "3", "--retries", "0"),
    *("--default-resources", "mem_mb=1000", "runtime=5"),
)
# No fast machine is done before it is disturbed, and what waits to be disturbed takes no core.
SLOW = """
import builtins, time

say = builtins.print

def say_and_wait(*words, **options):
    say(*words, **options)
    if str(words[0]).startswith("epoch "):
        time.sleep(1)

builtins.print = say_and_wait
"""


def copy_of_the_project(folder: Path, *, epochs: int, seeds: int, data: Path | None = None) -> None:
    """The package and the workflow, and a study of one configuration.

    Args:
        folder: for the copy.
        epochs: of each cell.
        seeds: as many cells.
        data: packed digits that need not be made again.
    """
    copy_project(folder, "plugins")
    if data:
        shutil.copytree(data, folder / "data/digits")
    block = {"methods": ["moco"], "negatives": [16], "margins": ["eqco"]}
    study = {**yaml.safe_load(TINY.read_text()), "grid": [{**block, "seeds": list(range(seeds))}]}
    study["pretrain"] = {**study["pretrain"], "epochs": epochs, "queue": 512}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(study))


def slow_down(folder: Path) -> None:
    """Let each epoch of trainings that begin from now on take a second longer."""
    (folder / "sitecustomize.py").write_text(SLOW)


def speed_up(folder: Path) -> None:
    (folder / "sitecustomize.py").unlink()


def table(folder: Path) -> bytes:
    return b"".join(
        (folder / "results/tiny" / name).read_bytes() for name in ("table.csv", "negatives.svg")
    )


class Local:
    """A run on this machine alone, undisturbed, beside what else there is to do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [*(sys.executable, "-m", "snakemake", "table.csv"), *OF_THE_STUDY, "--cores", "1"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdout=(folder / "log.txt").open("wb"),
            stderr=subprocess.STDOUT,
        )

    def table(self) -> bytes:
        assert self.process.wait(timeout=300) == 0, (self.folder / "log.txt").read_text()
        return table(self.folder)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


def cell_log(grid: Project) -> str:
    """pretrain.log of all cells: a line an epoch."""
    return "".join(
        path.read_text() for path in grid.folder.glob("results/tiny/cells/**/pretrain.log")
    )


def first_epoch(grid: Project) -> int:
    """The epoch that the one cell's last process, and so its log, began with."""
    return int(cell_log(grid).split("epoch ")[1].split("/")[0])


def commands(grid: Project) -> list[psutil.Process]:
    """The pretrain commands that run in the folder."""
    found = []
    for process in processes_in(grid.folder / "results" / "tiny"):
        with suppress(psutil.Error):
            if process.cmdline()[1:4] == ["-m", "eqco", "pretrain"]:
                found.append(process)
    return found
