"""The published numbers: complete, plausible, and in the words that studies use."""

import pandas as pd
import pytest
from helpers import ROOT

from eqco import tables
from eqco.grid import axes, cells
from eqco.methods import METHODS
from eqco.params import Study, load_study
from eqco.published import matches


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return pd.read_csv(ROOT / "params" / "published.csv")


def test_the_columns(published):
    expected = "paper dataset method loss negatives batch epochs protocol value source"
    assert " ".join(published.columns) == expected
    for column in ("paper", "dataset", "protocol", "value", "source"):
        assert published[column].notna().all(), column


def test_values_are_percent_and_methods_are_ours(published):
    assert published["value"].between(30, 100).all()
    assert set(published["method"].dropna()) <= {*METHODS, "moco-v2"}
    assert set(published["loss"].dropna()) <= {
        "info-nce",
        "eqco",
        "dcl",
        "dclw",
        "dual-temperature",
    }


def test_no_number_stands_twice(published):
    assert not published.drop(columns="source").duplicated().any()


@pytest.mark.parametrize(
    ("paper", "batch", "value"),
    [("MoCo v2 repository", 256, 67.5), ("google-research/simclr", 512, 91.0)],
)
def test_numbers_that_everybody_knows(published, paper, batch, value):
    rows = published[(published["paper"] == paper) & (published["batch"] == batch)]
    assert value in set(rows["value"])


def table_of(study: Study, accuracy: float) -> pd.DataFrame:
    """A table of the study in which every cell has this accuracy."""
    rows = [
        {
            **tables._configuration(cell, axes(study)),
            "protocol": protocol,
            "seed": cell.seed,
            "accuracy": accuracy,
            "hole": "",
        }
        for cell in cells(study).values()
        for protocol in study.evaluate.protocols
    ]
    return tables.aggregate(pd.DataFrame(rows))


FILE = ROOT / "params" / "published.csv"


def test_ours_stands_beside_the_papers_with_the_difference():
    """MoCo's notebook says 82.6 by kNN, and nothing by a linear probe at 200 epochs."""
    study = load_study(ROOT / "params" / "moco-cifar10-demo.yaml")
    table = tables.beside_published(table_of(study, 82.0), study, FILE).set_index("protocol")
    assert "82.6 MoCo CIFAR-10 notebook" in table.loc["knn", "published"]
    assert "-0.60" in table.loc["knn", "difference"].split()
    assert table.loc["linear-lbfgs", "published"] == ""


def test_a_batch_sweep_finds_the_value_of_each_batch():
    study = load_study(ROOT / "params" / "simclr-dcl-cifar10.yaml")
    found = {
        (cell.batch, cell.margin): set(rows["value"])
        for cell in cells(study).values()
        if not (rows := matches(study, cell, "linear", FILE)).empty
    }
    assert 86.4 in found[32, 0]
    assert 87.0 in found[32, float("inf")]
    assert 88.5 in found[512, 0]
    assert 88.5 not in found[32, 0]


def test_a_study_without_published_numbers_has_no_such_columns():
    study = load_study(ROOT / "params" / "demo.yaml")
    table = table_of(study, 90.0)
    assert tables.beside_published(table, study, FILE).equals(table)


def test_elsewhere_nothing_is_found(tmp_path):
    study = load_study(ROOT / "params" / "moco-cifar10-demo.yaml")
    assert matches(study, next(iter(cells(study).values())), "knn", tmp_path / "none").empty
