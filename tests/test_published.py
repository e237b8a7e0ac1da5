"""The published numbers: complete, plausible, and in the words that studies use."""

import pandas as pd
import pytest
from conftest import ROOT

from eqco.methods import METHODS


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
