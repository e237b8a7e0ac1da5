"""The grid on a real SLURM: the table of a local run, byte for byte."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest
import torch
from cluster import wait_until
from grid import (
    SMALL,
    Local,
    cell_log,
    commands,
    copy_of_the_project,
    slow_down,
    table,
)
from helpers import python_path
from project import Project


@pytest.fixture(scope="module")
def short(tmp_path_factory, digits) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("short")
    copy_of_the_project(folder, epochs=2, seeds=2, data=digits)
    local = Local(folder)
    yield local
    local.end()


def trainings(grid: Project) -> list[dict[str, str]]:
    """The environments of the pretrain commands that run."""
    found = []
    for process in commands(grid):
        with suppress(psutil.Error):
            found.append(process.environ())
    return found


def test_the_profile_gives_the_local_table(grid, short):
    copy_of_the_project(grid.folder, epochs=2, seeds=2)
    assert grid.run(*SMALL, profile=True) == 0, grid.log
    assert table(grid.folder) == short.table()
    jobs = grid.jobs()
    assert len(jobs) == 1 + 2  # the data, and a job a cell: its evaluations travel with it
    assert len({id_.split("_")[0] for id_ in jobs}) == 2
    assert "2 of 2 cells done" in grid.log
    assert grid.run(*SMALL, profile=True) == 0
    assert "Nothing to be done" in grid.log


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a torch that sees no GPU")
def test_a_job_that_asked_for_a_gpu_does_not_train_without_one(grid, digits):
    copy_of_the_project(grid.folder, epochs=2, seeds=1, data=digits)
    del grid.environment["EQCO_DEVICE"]
    assert grid.run(*SMALL, profile=True) == 1
    told = cell_log(grid)
    assert told.startswith("eqco: --device: auto: torch ")
    assert "sees no GPU, but one is here" in told
    assert told.count("\n") == 1
    assert not list(grid.folder.rglob("encoder.safetensors"))


def test_a_cell_runs_on_the_gpu_that_slurm_gives_it(grid, digits):
    copy_of_the_project(grid.folder, epochs=400, seeds=3, data=digits)
    slow_down(grid.folder)
    process = grid.start(*SMALL, profile=True)
    wait_until(lambda: list(grid.jobs().values()).count("RUNNING") >= 3, "three cells")
    wait_until(lambda: len(trainings(grid)) == 3, "three trainings")
    given = {(t["SLURMD_NODENAME"], t["CUDA_VISIBLE_DEVICES"]) for t in trainings(grid)}
    assert len(given) == 3
    assert given < {("n1", "0"), ("n1", "1"), ("n2", "0"), ("n2", "1")}
    wait_until(lambda: cell_log(grid).count("epoch 1/") == 3, "three first epochs")
    os.kill(process.pid, signal.SIGINT)
    process.wait(timeout=180)
    wait_until(lambda: not trainings(grid), "the end of all trainings")
    # what was cancelled has saved its state
    assert list(grid.folder.glob("results/tiny/state/**/step-*"))


def test_it_runs_without_slurm(tmp_path, digits, short):
    """Both cells in one process of this machine, as a group."""
    grid = Project(tmp_path)
    grid.environment["PYTHONPATH"] = python_path(tmp_path)
    copy_of_the_project(tmp_path, epochs=2, seeds=2, data=digits)
    options = ("--submitit-cluster", "local", "--jobs", "2", "--group-components", "cell=2")
    code = grid.run("table.csv", *SMALL, *options, profile=True)
    assert code == 0, grid.log
    assert table(tmp_path) == short.table()
