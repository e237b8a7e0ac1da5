"""The table and the figure of a study, from made-up accuracies."""

import math
import re
import statistics

import pandas as pd
import pytest
from PIL import Image

from eqco.report import figures, summary, tables
from eqco.report.lines import lines_of, ticks_of
from eqco.study.cell import Cell
from eqco.study.protocols import Evaluate

VALUES = {
    ("0", 1): [80.0, 81.0, 82.5],
    ("0", 16): [84.0, 84.0, 84.5],
    ("eqco", 1): [84.2, 84.1, 83.0],
}


@pytest.fixture
def accuracies() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "method": "simo",
                "negatives": k,
                "margin": margin,
                "alpha": "256" if margin == "eqco" else str(k),
                "temperature": "0.2",
                "protocol": protocol,
                "seed": seed,
                "accuracy": value + i,
                "hole": "",
            }
            for (margin, k), values in VALUES.items()
            for seed, value in enumerate(values)
            for i, protocol in enumerate(Evaluate().protocols)
        ]
    )


def test_one_row_a_configuration_and_protocol(accuracies):
    table = tables.aggregate(accuracies)
    expected = "method negatives margin alpha temperature protocol seeds mean std values"
    assert " ".join(table.columns) == expected
    assert len(table) == 9
    first = table.iloc[0]
    assert (first.margin, first.negatives, first.protocol) == ("0", 1, "linear-lbfgs")
    assert first.seeds == 3
    assert first["mean"] == f"{statistics.mean(VALUES['0', 1]):.2f}"
    assert first["std"] == f"{statistics.stdev(VALUES['0', 1]):.2f}"
    assert first["values"] == "80.00 81.00 82.50"


@pytest.mark.parametrize("why", tables.HOLES)
def test_a_seed_without_a_value_leaves_a_hole_and_no_mean(accuracies, why):
    hole = accuracies.eval("seed == 1 and negatives == 16")
    accuracies.loc[hole, ["accuracy", "hole"]] = math.nan, why
    table = tables.aggregate(accuracies)
    holes = table[table["negatives"] == 16]
    assert set(holes["mean"]) == set(holes["std"]) == {""}
    assert holes.iloc[0]["values"] == f"84.00 {why} 84.50"
    assert all(table[table["negatives"] == 1]["mean"])
    assert all("K=16" not in name for rows in tables.metrics(table).values() for name in rows)
    assert f"84.00 {why} 84.50" in tables.markdown(table, [])


def test_more_neighbours_than_a_class_has_images_is_a_note(tiny, study_with):
    summaries = [{"smallest_class": 130}, {"smallest_class": None}, {"missing": "x"}]
    study = study_with({"evaluate.knn.k": 200, "evaluate.knn.ks": [20, 131]})
    first, second = tables.notes(study, summaries)
    assert first.startswith("`knn`: k = 200 is more than the 130 training images of the smallest")
    assert second.startswith("`knn-k~131`: ")
    assert tables.notes(tiny, summaries) == []  # k = 5
    assert tables.notes(study, summaries[1:]) == []  # not known of results of earlier versions


def test_the_summary_has_a_row_a_margin_and_a_column_a_k(accuracies):
    text = summary.render(tables.aggregate(accuracies))
    blocks = text.split("\n\n")
    heads = [block for block in blocks if block.endswith("n = 3 seeds")]
    assert [head.partition(":")[0].strip() for head in heads] == Evaluate().protocols
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in blocks[1].splitlines()]
    assert lines[0] == ["", "K = 1", "K = 16"]
    assert lines[2] == ["InfoNCE (m = 0)", "81.17 ± 1.26", "84.17 ± 0.29"]
    assert lines[3] == ["EqCo (m = τ log α/K)", "83.77 ± 0.67", ""]


def test_the_summary_as_latex_has_the_same_cells(accuracies):
    table = tables.aggregate(accuracies)
    written = summary.latex(table)
    assert written.isascii()
    for symbol, command in (("±", "pm"), ("α", "alpha"), ("τ", "tau"), ("∞", "infty")):
        written = written.replace(rf"$\{command}$", symbol)
    rows = re.findall(r"^(.*?) *\\\\$", written, re.M)
    assert [[cell.strip() for cell in row.split("&")] for row in rows] == [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in summary.render(table).splitlines()
        if line.startswith("|") and not line.startswith("|:")
    ]
    heads = re.findall(r"caption\{(.*)\}", written)
    assert [head.replace(r"\%", "%") for head in heads] == [
        line for line in summary.render(table).splitlines() if "accuracy [%]" in line
    ]


def test_a_hole_in_the_summary(accuracies):
    hole = accuracies.eval("seed == 1 and negatives == 16")
    accuracies.loc[hole, ["accuracy", "hole"]] = math.nan, "failed"
    assert "| 81.17 ± 1.26 | hole     |" in summary.render(tables.aggregate(accuracies))


def test_one_seed_has_no_deviation(accuracies):
    one = accuracies[accuracies["seed"] == 0]
    table = tables.aggregate(one)
    assert set(table["std"]) == {""}
    assert "±" not in tables.markdown(table, []).split("\n", 2)[2]


def test_the_table_for_people(accuracies):
    text = tables.markdown(tables.aggregate(accuracies), [])
    assert "| simo     | 1   | 0    | 1   | 0.2 | linear-lbfgs | 3   | 81.17 ± 1.26" in text


@pytest.mark.parametrize(
    ("margin", "alpha", "expected"),
    [("eqco", 256.0, 256), (0.0, None, 16), (0.2, None, 16 * math.e), (math.inf, None, math.inf)],
)
def test_alpha_is_the_effective_number_of_negatives(margin, alpha, expected):
    cell = Cell(
        method="simo",
        negatives=16,
        margin=margin,
        alpha=alpha,
        temperature=0.2,
        batch=256,
        lr=0.1,
        seed=0,
    )
    assert cell.effective_alpha == pytest.approx(expected)


def test_the_figure_is_drawn_and_repeats_to_the_byte(accuracies, tmp_path):
    for stem in ("a", "b"):
        figures.save(figures.negatives(accuracies, "study"), tmp_path / stem)
    for suffix in (".svg", ".png"):
        a, b = ((tmp_path / f"{stem}{suffix}").read_bytes() for stem in ("a", "b"))
        assert a == b
    svg = (tmp_path / "a.svg").read_text()
    panels = [f"simo, {protocol}" for protocol in Evaluate().protocols]
    assert "simo, knn" in panels  # none is left out
    for label in ("InfoNCE (m = 0)", "negatives an anchor, K", "test accuracy", *panels):
        assert f">{label}" in svg
    pixels = Image.open(tmp_path / "a.png").convert("RGB")
    colors = {color for _, color in pixels.getcolors(1 << 20)}
    assert {(0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)} <= colors  # both lines


def test_lines_are_told_apart_by_what_varies(accuracies):
    other = accuracies.assign(temperature="0.1")
    svg = figures.svg(figures.negatives(pd.concat([accuracies, other]), "study"))
    assert "temperature 0.1" in svg
    assert "temperature 0.2" in svg
    # what goes with K does not: a line needs more than one K
    other = accuracies.assign(batch=accuracies["negatives"] + 1)
    assert "batch" not in figures.svg(figures.negatives(other, "study"))


def test_a_control_with_the_weights_of_a_margin_names_both(accuracies):
    rolled = accuracies.assign(loss="dcl-rolled")
    assert set(lines_of(rolled)) == {
        "dcl-rolled, InfoNCE (m = 0)",
        "dcl-rolled, EqCo (m = τ log α/K)",
    }
    assert set(lines_of(rolled.assign(margin=""))) == {"dcl-rolled"}


def test_numbers_on_the_axis_do_not_overlap(accuracies):
    both = pd.concat([accuracies.assign(negatives=k) for k in (64, 256, 255)])
    assert ticks_of(both) == {64: "64", 255: "255, 256"}
    assert list(ticks_of(accuracies)) == sorted(accuracies["negatives"].unique())


def test_a_margin_too_large_for_the_exponential_is_an_infinite_alpha():
    cell = Cell(
        method="simo",
        negatives=16,
        margin=1e6,
        alpha=None,
        temperature=0.2,
        batch=256,
        lr=0.1,
        seed=0,
    )
    assert cell.effective_alpha == math.inf


def test_geometry_is_a_mean_over_seeds_and_leaves_holes_out(accuracies):
    rows = accuracies[accuracies["protocol"] == accuracies["protocol"].iloc[0]]
    summaries = [
        {"geometry": {"alignment": 0.1 * i, "rank_me": 10.0}} if hole == "" else {"missing": "x"}
        for i, hole in enumerate(rows["hole"])
    ]
    table = tables.geometry(accuracies, summaries)
    key = tables.configuration(accuracies)
    arm = rows.reset_index(drop=True).groupby(key, sort=False)
    for (_, group), shown in zip(arm, table["alignment"], strict=True):
        values = [0.1 * i for i in group.index if group.loc[i, "hole"] == ""]
        assert shown.split(" ± ")[0] == f"{sum(values) / len(values):.3f}"
    assert tables.geometry(accuracies, [{} for _ in summaries]).empty
