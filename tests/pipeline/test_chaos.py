"""Kills at random moments over a small grid: the table is that of an undisturbed run, to the byte.

EQCO_KILLS says how many in the slow case (100: a quarter of an hour), EQCO_SEED where they fall.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from helpers import TINY, copy_project, with_values
from project import processes_in

KILLS = int(os.environ.get("EQCO_KILLS", "6"))
SEED = int(os.environ.get("EQCO_SEED", random.SystemRandom().randrange(10**6)))


def project(folder: Path, methods: list[str], seeds: list[int]) -> Path:
    """A copy of the project with a study of several methods."""
    copy_project(folder)
    changes = {
        "pretrain.epochs": 5,
        "pretrain.queue": 300,
        "grid.0.methods": methods,
        "grid.0.negatives": [16],
        "grid.0.margins": ["eqco"],
        "grid.0.seeds": seeds,
    }
    study = with_values(yaml.safe_load(TINY.read_text()), changes)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(study))
    return folder


def start(project: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--configfile", "tiny.yaml", "--cores", "2"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project), "EQCO_CHECKPOINT_SECONDS": "0.2"},
        stdout=(project / "log.txt").open("wb"),
        stderr=subprocess.STDOUT,
    )


def end(processes: list[psutil.Process]) -> None:
    """Kill them, and wait until they are gone."""
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=30)


def tables(project: Path) -> dict[str, bytes]:
    names = ("table.csv", "table.md", "metrics.json", "negatives.svg", "negatives.png")
    return {name: (project / "results/tiny" / name).read_bytes() for name in names}


@pytest.mark.parametrize(
    ("count", "methods", "seeds"),
    [
        (2, ["nnclr"], [0]),
        pytest.param(KILLS, ["moco", "simo", "nnclr"], [0, 1], marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_moments_the_grid_ends_in_the_same_table(tmp_path, count, methods, seeds):
    folder = project(tmp_path, methods, seeds)
    print(f"EQCO_SEED={SEED}")  # shown when it fails
    chance = random.Random(SEED)
    began = time.monotonic()
    assert start(folder).wait() == 0
    seconds = time.monotonic() - began
    undisturbed = tables(folder)
    kills = 0
    while kills < count:
        if (folder / "results/tiny/table.csv").exists():
            end(processes_in(folder))  # an orphan may still write
            shutil.rmtree(folder / "results")  # done again: from the beginning
        process = start(folder)
        try:
            process.wait(chance.uniform(1, seconds))
        except subprocess.TimeoutExpired:
            # one of them, or all at once, as when a machine loses power
            # Snakemake, shells, commands, the fork server
            alive = processes_in(folder)
            end(chance.choice((alive, [chance.choice(alive)])))
            kills += 1
            process.wait()
    assert start(folder).wait() == 0, (folder / "log.txt").read_text()
    assert tables(folder) == undisturbed
