"""A study that selects: Snakemake trains the cells that decide, then those of the selected values.

The study has one arm with two learning rates to select from, and one with a single rate.
"""

import math
import shutil
import statistics

import pandas as pd
import pytest
import yaml
from helpers import ROOT, TINY, copy_project, eqco, with_values
from tiny_grid import jobs, ran, snakemake

pytestmark = pytest.mark.usefixtures("fork_server")

ARM = "method~simo/negatives~16/margin~0"
OTHER = "method~simo/negatives~16/margin~eqco"
RATES = ("1e-05", "0.03")  # no training, and some
COMPARE = ("compare", "tiny.yaml", "--against", "margin=0", "--protocol", "knn")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The project after a run, and what a dry run told before it."""
    folder = tmp_path_factory.mktemp("selection")
    copy_project(folder)
    block = {"methods": ["simo"], "negatives": [16]}
    changes = {
        "data.validation": 100,
        "select": {"axis": "lr", "protocol": "knn@validation", "seeds": [100, 101]},
        "grid": [
            {**block, "margins": [0], "lrs": [1e-5, 0.03], "seeds": [0, 1]},
            {**block, "margins": ["eqco"], "lrs": [0.01], "seeds": [0, 1]},
        ],
    }
    study = with_values(yaml.safe_load(TINY.read_text()), changes)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(study))
    dry = snakemake(folder, "-n")
    done = snakemake(folder, "--cores", "2")
    assert done.returncode == 0, done.stdout
    return folder, dry, done


def test_a_dry_run_says_what_is_known(trained):
    _, dry, _ = trained
    assert dry.returncode == 0, dry.stdout
    assert jobs(dry.stdout) == {
        **{"prepare": 1, "pretrain": 4, "linear_eval": 4, "knn_eval": 4},
        **{"select": 1, "table": 1, "report": 1, "all": 1},
    }


def test_only_the_selected_value_is_confirmed(trained):
    folder, _, done = trained
    cells = folder / "results/tiny/cells"
    found = {str(path.parent.relative_to(cells)) for path in cells.glob("**/knn.json")}
    selected = pd.read_csv(folder / "results/tiny/selection.csv", dtype={"value": str})
    best = selected.loc[selected["selected"], "value"].item()
    assert found == {
        *(f"{ARM}/lr~{rate}/seed~{seed}" for rate in RATES for seed in (100, 101)),
        *(f"{ARM}/lr~{best}/seed~{seed}" for seed in (0, 1)),
        *(f"{OTHER}/lr~0.01/seed~{seed}" for seed in (0, 1)),
    }
    assert done.stdout.count("Traceback") == 0
    assert "8 of 8 cells done" in done.stdout  # 4 that decide, and 4 more


def test_the_best_mean_on_validation_images_is_selected(trained):
    """By pandas, from the cells' files."""
    folder, _, _ = trained
    means = {
        rate: statistics.fmean(
            yaml.safe_load(
                (folder / f"results/tiny/cells/{ARM}/lr~{rate}/seed~{seed}/knn.json").read_text()
            )["accuracy"]["knn@validation"]
            for seed in (100, 101)
        )
        for rate in RATES
    }
    table = pd.read_csv(folder / "results/tiny/selection.csv", dtype={"value": str})
    assert dict(zip(table["value"], table["mean"], strict=True)) == pytest.approx(means, abs=1e-4)
    assert table.set_index("value")["mean"].idxmax() == table.loc[table["selected"], "value"].item()
    assert list(table["arm"].unique()) == [ARM]  # the other has nothing to select from


def test_the_table_has_the_other_seeds_at_the_selected_value(trained):
    folder, _, _ = trained
    table = pd.read_csv(folder / "results/tiny/table.csv", dtype=str)
    assert "lr" not in table
    assert len(table) == 2 * 6  # protocols, on validation images too
    assert set(table["seeds"]) == {"2"}
    assert set(table.loc[table["margin"] == "eqco", "selected_lr"]) == {"0.01"}
    text = (folder / "results/tiny/table.md").read_text()
    assert "is at an edge of what was tried, 1e-05, 0.03" in text
    page = (folder / "results/tiny/report.html").read_text()
    assert 'id="selection"' in page
    assert (folder / "results/tiny/selection.svg").exists()


def test_again_does_nothing(trained):
    assert ran(snakemake(trained[0])) == {}


def test_arms_are_compared_each_at_its_own_value(trained):
    done = eqco(*COMPARE, cwd=trained[0])
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(trained[0] / "results/tiny/comparison.csv")
    assert len(table) == 1
    assert not math.isnan(table["difference"].item())


def test_status_counts_what_has_to_run(trained):
    folder, _, _ = trained
    assert "8 of 8 cells done" in eqco("status", "tiny.yaml", cwd=folder).stdout
    assert eqco("cells", "tiny.yaml", cwd=folder).stdout == ""
    plan = eqco("plan", "tiny.yaml", "--speeds", ROOT / "published/speeds.csv", cwd=folder)
    assert "cells    8," in plan.stdout


def test_a_clone_makes_the_table_from_the_archive(trained, tmp_path):
    folder, _, _ = trained
    kept = eqco("keep", "tiny.yaml", cwd=folder)
    assert "8 of 8 cells" in kept.stdout, kept.stderr
    shutil.copytree(folder, tmp_path / "clone", symlinks=True)
    clone = tmp_path / "clone"
    results = clone / "results/tiny"
    names = ("table.csv", "selection.csv", "selection.svg", "table.md")
    before = {name: (results / name).read_bytes() for name in names}
    for name in ("cells", ".snakemake", "logs"):
        shutil.rmtree(results / name)
    done = snakemake(clone, "--cores", "2")
    assert ran(done) == {"select": 1, "table": 1, "report": 1, "all": 1}
    assert {name: (results / name).read_bytes() for name in names} == before
    assert ran(snakemake(clone)) == {}
