"""A finished grid of the tiny study."""

import shutil
from pathlib import Path

import pytest
from helpers import TINY, cold, copy_project
from tiny_grid import CELLS, COLD, MADE, change, ran, run


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A folder with the package, the workflow and a finished run of the tiny study.

    It is a process and has a fork server of its own, unlike the other tests' runs.
    """
    folder = tmp_path_factory.mktemp("grid")
    copy_project(folder)
    shutil.copy(TINY, folder / "tiny.yaml")
    change(folder, {"grid.0.negatives": [16]})
    done = run(folder, COLD, cold(folder))
    assert ran(done) == {
        "prepare": 1,
        "pretrain": CELLS,
        "linear_eval": CELLS,
        "knn_eval": CELLS,
        **MADE,
    }
    (folder / "log.txt").write_text(done.stdout)
    return folder


@pytest.fixture
def grid(finished, tmp_path) -> Path:
    """A copy of the finished run to change."""
    return shutil.copytree(finished, tmp_path / "grid", symlinks=True)
