"""The published numbers: complete, plausible, and in the words that studies use."""

import pandas as pd
import pytest
from helpers import ROOT

from eqco import tables
from eqco.grid import axes, cells, text
from eqco.methods import METHODS
from eqco.params import Study, load_study
from eqco.published import matches

FILE = ROOT / "params" / "published.csv"


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return pd.read_csv(FILE, dtype=str, keep_default_na=False).astype({"value": float})


def test_the_columns(published):
    expected = (
        "paper dataset backbone augmentation method symmetric loss negatives alpha temperature "
        "batch epochs protocol value source"
    )
    assert " ".join(published.columns) == expected
    for column in ("paper", "dataset", "protocol", "source"):
        assert published[column].ne("").all(), column
    for column in ("negatives", "alpha", "temperature", "batch", "epochs"):
        said = set(published[column]) - {"", "tuned"}
        assert said == {text(float(value)) for value in said}, column  # as cells have them


def test_values_are_percent_and_names_are_ours(published):
    assert published["value"].between(30, 100).all()
    assert set(published["method"]) <= {"", *METHODS, "moco-v2"}
    losses = {"info-nce", "eqco", "dcl", "dclw", "dual-temperature"}
    assert set(published["loss"]) <= {"", *losses}
    assert set(published["backbone"]) <= {"", "resnet18", "resnet50", "alexnet"}
    assert set(published["symmetric"]) <= {"", "true", "false"}


def test_what_a_method_or_a_loss_leaves_no_choice_of_is_not_said(published):
    choice = published["method"].isin(["moco", "moco-v2", "simmoco"])
    assert published[~choice]["symmetric"].eq("").all()
    assert published[published["loss"] != "eqco"]["alpha"].eq("").all()


def test_simclrs_negatives_are_both_views_of_the_other_images(published):
    rows = published[(published["method"] == "simclr") & (published["batch"] != "")]
    assert rows["negatives"].astype(int).eq(2 * (rows["batch"].astype(int) - 1)).all()


def test_the_rows_are_sorted_by_dataset_and_paper(published):
    names = list(zip(published["dataset"], published["paper"], strict=True))
    assert names == sorted(names)


def test_no_number_stands_twice(published):
    assert not published.drop(columns="source").duplicated().any()


@pytest.mark.parametrize(
    ("paper", "batch", "value"),
    [("MoCo v2 repository", 256, 67.5), ("google-research/simclr", 512, 91.0)],
)
def test_numbers_that_everybody_knows(published, paper, batch, value):
    rows = published[(published["paper"] == paper) & (published["batch"] == str(batch))]
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
