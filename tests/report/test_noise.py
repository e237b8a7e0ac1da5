"""Configurations that are one training under two names are found, and no others."""

import pandas as pd
import pytest
from helpers import ROOT

from eqco.report import noise, tables
from eqco.report.comparisons import compare
from eqco.study.claims import Comparison
from eqco.study.grid import Grid
from eqco.study.load import load_study


def rows(losses: dict[tuple[str, int], str | None]) -> pd.DataFrame:
    """One protocol, an arm per margin, by (margin, seed)."""
    return pd.DataFrame(
        {
            **{"method": "simo", "negatives": 4, "margin": margin, "alpha": "", "protocol": "knn"},
            **{"seed": seed, "accuracy": 50.0 + seed, "losses": text},
        }
        for (margin, seed), text in losses.items()
    )


SAME = {("0", 0): "2 1", ("0", 1): "2 1.5", ("eqco", 0): "2 1", ("eqco", 1): "2 1.5"}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, [["margin=0", "margin=eqco"]]),
        ({("eqco", 1): "2 1.6"}, []),
        ({("eqco", 1): None}, []),  # a hole
        ({("eqco", 2): "3 2"}, []),  # other seeds
        ({("inf", 0): "2 1", ("inf", 1): "2 1.5"}, [["margin=0", "margin=eqco", "margin=inf"]]),
    ],
)
def test_the_same_losses_on_the_same_seeds(change, found):
    assert noise.same(rows({**SAME, **change})) == found


def test_a_loss_counts_to_six_digits_and_a_failed_training_not():
    def losses(loss: float, failed: str | None = None) -> str | None:
        return noise.losses({"failed": failed, "history": [{"loss": loss}]})

    assert losses(1.2345678) == losses(1.2345681)
    assert losses(1.2345678) != losses(1.2346678)
    assert losses(1.0, "diverged") is None
    assert noise.losses({"missing": "not there"}) is None


def test_a_comparison_of_one_loss_with_itself_says_so():
    """MoCo's K = α = 4,096, with and without EqCo's margin, which is 0 there."""
    grid = Grid(load_study(ROOT / "params" / "negatives-cpu.yaml"))
    accuracies, _ = tables.read_study(grid, ROOT / "results" / "negatives-cpu")
    table = compare(accuracies, Comparison(name="x", against={"margin": "0"}, protocol="knn"))
    marked = table[table["same_losses"].eq(True)]
    assert set(zip(marked["method"], marked["negatives"], strict=True)) == {("moco", 4096)}
    assert (marked["difference"] == 0).all()
