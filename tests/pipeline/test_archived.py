"""Tables of archived cells, without the cells' folders."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tiny_grid import CELLS, MADE, change, ran, snakemake, tables

pytestmark = pytest.mark.usefixtures("fork_server")


def keep(grid: Path) -> None:
    """Keep the cells of the grid's study, and leave of its run what git would hold."""
    command = [sys.executable, "-m", "eqco", "keep", "tiny.yaml"]
    done = subprocess.run(command, cwd=grid, capture_output=True, text=True, check=True)
    assert done.stdout == f"results/tiny/cells.jsonl: {CELLS} of {CELLS} cells\n"
    shutil.rmtree(grid / "data")
    for name in ("cells", "logs", ".snakemake"):
        shutil.rmtree(grid / "results" / "tiny" / name)
    for name in ("lock", "report.html"):
        (grid / "results" / "tiny" / name).unlink()


def test_kept_cells_make_the_same_table_without_training(grid):
    keep(grid)
    before = {path: path.read_bytes() for path in (grid / "results/tiny").iterdir()}
    assert len(before) == 8  # the table's outputs, and what was kept
    assert ran(snakemake(grid, "--cores", "1")) == MADE
    assert {path: path.read_bytes() for path in before} == before
    assert ran(snakemake(grid)) == {}
    assert not (grid / "data").exists()
    change(grid, {"grid.0.seeds": [1]})
    assert ran(snakemake(grid, "-n")) == MADE


@pytest.mark.parametrize(
    ("changes", "new"),
    [
        ({"grid.0.seeds": [0, 1, 7]}, 2),
        ({"alpha": 512}, 2),
        ({"pretrain.lr": 0.02}, 4),
        ({"evaluate.knn.k": 7}, 4),
    ],
    ids=str,
)
def test_a_changed_parameter_runs_the_cells_that_were_kept_with_another(grid, changes, new):
    keep(grid)
    change(grid, changes)
    each = {"pretrain": new, "linear_eval": new, "knn_eval": new}
    assert ran(snakemake(grid, "-n")) == {"prepare": 1, **each, **MADE}


def test_a_table_is_made_of_kept_cells_and_new_ones(grid):
    before = tables(grid)
    keep(grid)
    change(grid, {"grid.0.seeds": [0, 7]})
    assert ran(snakemake(grid, "--cores", "2"))["pretrain"] == CELLS / 2
    table = pd.read_csv(grid / "results/tiny/table.csv")
    assert tables(grid) != before
    assert len(table) == 2 * 3
    change(grid, {"grid.0.seeds": [0, 1]})
    assert ran(snakemake(grid, "--cores", "1")) == MADE
    assert tables(grid) == before


def test_a_damaged_line_of_what_was_kept_is_named(grid):
    keep(grid)
    path = grid / "results/tiny/cells.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2][:40], *lines[3:]]))
    done = snakemake(grid, "-n")
    assert done.returncode == 1
    assert "results/tiny/cells.jsonl: line 3: is damaged; bring the file back" in done.stdout
    assert "Traceback" not in done.stdout
