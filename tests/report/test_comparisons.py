"""Comparisons of a study's configurations: which with which, from which seeds, and what is said."""

import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from scipy import stats

from eqco.commands.compare import parse_against, write_comparison
from eqco.errors import InputError
from eqco.report.comparisons import compare
from eqco.report.statistics import over_images
from eqco.report.tables import read_study
from eqco.store.images import pack
from eqco.study.claims import Comparison
from eqco.study.grid import Grid
from eqco.study.load import load_study


def comparison(against: dict[str, str], **options) -> Comparison:
    return Comparison(name="x", against=against, **options)


RANDOM = np.random.default_rng(0)


def accuracies_of(study: str) -> pd.DataFrame:
    grid = Grid(load_study(ROOT / "params" / f"{study}.yaml"))
    return read_study(grid, ROOT / "results" / study)[0]


def a_grid(values: dict[tuple, dict[int, float]]) -> pd.DataFrame:
    """Accuracies by (method, K, margin) and seed."""
    rows = [
        {
            **{"method": method, "negatives": k, "margin": margin, "alpha": "256"},
            **{"protocol": "knn", "seed": seed, "accuracy": accuracy, "hole": ""},
        }
        for (method, k, margin), seeds in values.items()
        for seed, accuracy in seeds.items()
    ]
    return pd.DataFrame(rows)


def seeds(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


TWO = a_grid(
    {
        ("simo", 4, "0"): seeds(50, 51, 53),
        ("simo", 4, "eqco"): seeds(52, 52, 56),
        ("simo", 16, "0"): seeds(60, 61, 62),
        ("simo", 16, "eqco"): seeds(61, 60, 63),
        ("moco", 4, "0"): seeds(40, 41, 42),
        ("moco", 4, "eqco"): seeds(41, 43, 42),
    }
)


def test_each_configuration_meets_the_one_that_differs_in_the_named_axes_alone():
    table = compare(TWO, comparison({"margin": "0"}))
    assert table[["method", "negatives", "margin"]].values.tolist() == [
        ["simo", 4, "eqco"],
        ["simo", 16, "eqco"],
        ["moco", 4, "eqco"],
    ]
    first = table.iloc[0]
    d = np.array([2, 1, 3])
    assert (first["n"], first["difference"], first["sd"], first["above"]) == ("3", 2, 1, 3)
    assert first["p"] == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
    assert first["correlation"] == pytest.approx(np.corrcoef([52, 52, 56], [50, 51, 53])[0, 1])
    both = compare(TWO, comparison({"negatives": "4", "margin": "0"}))
    (far,) = both.query("negatives == 16 and margin == 'eqco'")["difference"]
    assert far == pytest.approx((61 + 60 + 63 - 50 - 51 - 53) / 3)


def test_pooled_arms_are_means_by_seed():
    (row,) = (
        compare(TWO[TWO["negatives"] == 4], comparison({"margin": "0"}, pool=["method"]))
    ).to_dict("records")
    d = np.array([(2 + 1) / 2, (1 + 2) / 2, (3 + 0) / 2])
    assert row["difference"] == pytest.approx(d.mean())
    assert row["sd"] == pytest.approx(d.std(ddof=1))


def test_arms_with_other_seeds_are_unpaired_and_holes_leave_their_pair_out():
    rows = a_grid(
        {
            ("simo", 4, "0"): {0: 50.0, 1: 51.0, 2: np.nan, 3: 52.0},
            ("simo", 4, "eqco"): {0: 51.0, 1: 53.0, 2: 60.0, 3: 53.0},
            ("simo", 4, "inf"): {7: 51.0, 8: 53.0, 9: 60.0},
        }
    )
    paired, welch = compare(rows, comparison({"margin": "0"})).to_dict("records")
    assert (paired["test"], paired["n"]) == ("paired", "3")
    assert paired["difference"] == pytest.approx(4 / 3)
    expected = stats.ttest_ind([51, 53, 60], [50, 51, 52], equal_var=False)
    assert (welch["test"], welch["n"]) == ("Welch", "3+3")
    assert welch["p"] == pytest.approx(expected.pvalue)


@pytest.mark.parametrize(
    ("study", "request_", "row", "expected"),
    [
        (
            "negatives-cpu",
            comparison({"margin": "0"}, pool=["method", "temperature"], protocol="linear-lbfgs"),
            {"negatives": 4},
            (0.72, -0.38, 1.82, 0.128),
        ),
        (
            "fashion-mnist",
            comparison({"margin": "0"}, protocol="knn"),
            {"negatives": 1},
            (-0.94, -1.12, -0.75, 0.0001),
        ),
    ],
)
def test_committed_studies(study, request_, row, expected):
    """As docs/findings.md has them, from scipy's own paired t by another way (test_findings)."""
    table = compare(accuracies_of(study), request_)
    ((_, found),) = table[(table[list(row)] == pd.Series(row)).all(axis=1)].iterrows()
    assert found[["difference", "low", "high"]].tolist() == pytest.approx(expected[:3], abs=0.005)
    assert found["p"] == pytest.approx(expected[3], abs=0.0005)


def test_the_page_shows_what_the_command_prints(tmp_path):
    shutil.copy(ROOT / "results" / "fashion-mnist" / "cells.jsonl", tmp_path)
    grid = Grid(load_study(ROOT / "params" / "fashion-mnist.yaml"))
    request = comparison({"margin": "0"}, protocol="knn", equivalence=1.0)
    told = write_comparison(grid, tmp_path, request)
    assert told.partition("\n\n")[2] in (ROOT / "docs" / "statistics.md").read_text()


def test_every_arm_of_the_controls_has_its_line():
    against = parse_against("margin=0,loss=info-nce,lr=0.01")
    table = compare(accuracies_of("controls-cpu"), comparison(against, protocol="linear-lbfgs"))
    assert len(table) == 16
    with pytest.raises(InputError, match="several fit: name alpha too, one of 256, 65536"):
        compare(accuracies_of("controls-cpu"), comparison({"margin": "eqco"}))


def test_the_verdicts():
    strong = seeds(50, 51, 52, 53, 54)
    rows = a_grid(
        {
            ("simo", 4, "0"): strong,
            ("simo", 4, "eqco"): {s: x + 2 + 0.1 * (s % 2) for s, x in strong.items()},
            ("simo", 4, "inf"): {s: x - 2 - 0.1 * (s % 2) for s, x in strong.items()},
            ("simo", 4, "0.1"): {s: x + 0.1 * (-1) ** s for s, x in strong.items()},
            ("simo", 4, "0.2"): {s: x + 5 * (-1) ** s for s, x in strong.items()},
        }
    )

    def verdicts(**options) -> list[str]:
        return compare(rows, comparison({"margin": "0"}, **options))["verdict"].tolist()

    assert verdicts() == ["above", "below", "undecided", "undecided"]
    assert verdicts(equivalence=0.5) == ["above", "below", "equivalent", "undecided"]
    plain = compare(rows, comparison({"margin": "0"}, correct="none"))
    assert plain["p_adjusted"].equals(plain["p"])
    assert (compare(rows, comparison({"margin": "0"}))["p_adjusted"] >= plain["p"]).all()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (comparison({"foo": "1"}), "against: foo: not an axis; allowed: method, negatives, margin"),
        (comparison({"negatives": "7"}), "against: negatives=7: no such value; allowed: 4, 16"),
        (comparison({"method": "moco", "negatives": "16"}), "no configuration differs from one in"),
        (comparison({"margin": "0"}, pool=["foo"]), "pool: foo: not an axis"),
        (comparison({"margin": "0"}, pool=["margin"]), "pool: margin: against names it"),
        (comparison({"margin": "0"}, protocol="x"), "protocol: x: unknown; allowed: knn"),
    ],
)
def test_mistakes_are_one_line(request_, message):
    with pytest.raises(InputError) as error:
        compare(TWO, request_)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_one_seed_is_not_compared():
    with pytest.raises(InputError, match="one seed: a comparison needs two or more"):
        compare(TWO[TWO["seed"] == 0], comparison({"margin": "0"}))


def test_under_no_difference_few_grids_have_a_finding():
    """Holm's families of three, pooled over two methods that share seeds: at most 1 in 20."""
    found = 0
    for _ in range(60):
        shared = RANDOM.normal(0, 1, 5)
        rows = a_grid(
            {
                (method, k, margin): seeds(*(shared + RANDOM.normal(0, 1, 5)))
                for method in ("simo", "moco")
                for k in (1, 4, 16)
                for margin in ("0", "eqco")
            }
        )
        verdicts = compare(rows, comparison({"margin": "0"}, pool=["method"]))["verdict"]
        found += bool((verdicts != "undecided").any())
    assert stats.binom.sf(found - 1, 60, 0.05) > 1e-4


def test_the_command_writes_what_it_prints(tmp_path):
    shutil.copy(ROOT / "results" / "negatives-cpu" / "cells.jsonl", tmp_path)
    grid = Grid(load_study(ROOT / "params" / "negatives-cpu.yaml"))
    told = write_comparison(grid, tmp_path, comparison({"margin": "0"}))
    assert (tmp_path / "comparison.md").read_text() == told
    table = pd.read_csv(tmp_path / "comparison.csv", keep_default_na=False)
    assert {"p_flip", "detectable", "correlation", "verdict"} <= set(table)
    assert told.count("| eqco") == len(table)


def test_where_right_images_were_kept_there_is_an_interval_over_them_too():
    """Pooled arms have the share of theirs that get an image right."""
    right = {
        ("simo", 4, "0"): [[1, 0, 0, 0], [1, 1, 0, 0]],
        ("simo", 4, "eqco"): [[1, 1, 1, 0], [1, 1, 0, 1]],
        ("moco", 4, "0"): [[1, 0, 0, 0], [1, 0, 0, 0]],
        ("moco", 4, "eqco"): [[1, 0, 1, 0], [1, 0, 0, 0]],
    }
    rows = a_grid({key: seeds(*(100 * np.mean(x) for x in both)) for key, both in right.items()})
    rows["correct"] = [pack(np.array(x, bool)) for both in right.values() for x in both]
    d = np.array([[0, 0.5, 1, 0], [0, 0, 0, 0.5]])
    table = compare(rows, comparison({"margin": "0"}, pool=["method"]))
    (found,) = table[["low_images", "high_images"]].values.tolist()
    assert found == pytest.approx(over_images(100 * d).interval())
    rows.loc[0, "correct"] = None
    assert "low_images" not in compare(rows, comparison({"margin": "0"}, pool=["method"]))
