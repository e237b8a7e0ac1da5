"""Verdicts on claims against scipy and statsmodels; when a claim was stated; the page of all."""

import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers import ROOT, make_up_cells, with_values
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from eqco.commands.claims import MARKS, stated, write_claims
from eqco.errors import InputError
from eqco.report import claims, figures, forest, tables
from eqco.report.claims import CONTRADICTED, SUPPORTED, UNDECIDED, verdict
from eqco.store.selection import choose, confirmed
from eqco.study.grid import Grid
from eqco.study.load import load_study, parse_study

STUDIES = sorted(ROOT.glob("params/*.yaml"))
PAGES = [ROOT / "README.md", ROOT / "results" / "README.md", ROOT / "docs" / "findings.md"]
SVG = "{http://www.w3.org/2000/svg}"
CLAIM = {"claim": "It is.", "source": "a test", "comparison": "eqco", "protocol": "knn"}
CHANGES = {
    "grid.0.negatives": [1, 4, 16],
    "grid.0.seeds": [0, 1, 2, 3, 4, 5],
    "comparisons": [{"name": "eqco", "against": {"margin": 0}, "equivalence": 0.5}],
    "claims": [
        {**CLAIM, "where": {"negatives": 1}, "expected": "above"},
        {**CLAIM, "where": {"negatives": 4}, "expected": "below"},
        {**CLAIM, "where": {"negatives": 16}, "expected": "equivalent"},
        {**CLAIM, "where": {"negatives": 1}, "expected": "above", "family": "other"},
    ],
}


@pytest.fixture
def study(tiny_values):
    return parse_study(with_values(tiny_values, CHANGES), "tiny.yaml")


@pytest.fixture
def accuracies(study, tmp_path):
    make_up_cells(study, tmp_path)
    return tables.read_study(Grid(study), tmp_path)[0]


def test_p_is_of_the_test_that_would_support_it_by_holm_in_its_family(study, accuracies):
    knn = accuracies[accuracies["protocol"] == "knn"]
    arms = knn.pivot_table("accuracy", "seed", ["negatives", "margin"])
    expected = [stats.ttest_rel(arms[k, "eqco"], arms[k, "0"]).pvalue for k in (1, 4)]
    expected.append(ttost_paired(arms[16, "eqco"], arms[16, "0"], -0.5, 0.5)[0])
    found = claims.claims(study, accuracies)
    assert found["p"].tolist() == pytest.approx([*expected, expected[0]])
    family = multipletests(expected, method="holm")[1]
    assert found["p_family"].tolist() == pytest.approx([*family, expected[0]])
    assert found["difference"][1] == pytest.approx((arms[4, "eqco"] - arms[4, "0"]).mean())


def test_the_figure_shows_each_claim_with_its_interval_and_verdict(study, accuracies):
    table = claims.claims(study, accuracies)
    drawn = ElementTree.fromstring(figures.svg(forest.draw_claims(table, "tiny")))
    texts = [" ".join(text.itertext()) for text in marks(drawn, "axis-label", "text")]
    assert texts[-len(table) :] == table["claim"].tolist()
    verdicts = [text.text for text in marks(drawn, "mark layer_4_marks", "text")]
    assert verdicts == table["verdict"].tolist()
    # the pixels of two ticks give the scale
    ticks = marks(drawn, "axis-label", "text")[: -len(table)]
    (first, *_, last) = ((float(tick.text.replace("−", "-")), place(tick)) for tick in ticks)
    pixels = (last[1] - first[1]) / (last[0] - first[0])

    def number(pixel: float) -> float:
        return first[0] + (pixel - first[1]) / pixels

    points = [number(place(mark)) for mark in marks(drawn, "mark layer_3_marks", "path")]
    assert points == pytest.approx(table["difference"].tolist(), abs=0.01)
    for bar, row in zip(
        marks(drawn, "mark layer_2_marks", "line"), table.itertuples(), strict=True
    ):
        ends = number(place(bar)), number(place(bar) + float(bar.get("x2")))
        assert sorted(ends) == pytest.approx([row.low, row.high], abs=0.01)


def marks(drawn: ElementTree.Element, role: str, tag: str) -> list[ElementTree.Element]:
    """The marks of an SVG's groups of a role, in their order."""
    groups = (group for group in drawn.iter(f"{SVG}g") if f"role-{role}" in group.get("class", ""))
    return [mark for group in groups for mark in group.iter(f"{SVG}{tag}")]


def place(mark: ElementTree.Element) -> float:
    """The horizontal pixel of a mark."""
    return float(re.match(r"translate\((-?[\d.]+)", mark.get("transform"))[1])


@pytest.mark.parametrize(
    ("expected", "difference", "low", "high", "p_family", "p_equivalence", "said"),
    [
        ("above", 2, 1, 3, 0.01, 1, SUPPORTED),
        ("above", -2, -3, -1, 0.01, 1, CONTRADICTED),
        ("above", 2, -1, 5, 0.2, 1, UNDECIDED),
        ("above", 0.1, -0.2, 0.4, 0.6, 0.01, CONTRADICTED),
        ("above", 0.1, 0.05, 0.15, 0.01, 0.01, CONTRADICTED),  # a difference of no interest
        ("below", -2, -3, -1, 0.01, np.nan, SUPPORTED),
        ("below", 2, 1, 3, 0.01, np.nan, CONTRADICTED),
        ("below", -2, -5, 1, 0.2, np.nan, UNDECIDED),
        ("equivalent", 0.1, -0.2, 0.4, 0.01, 0.01, SUPPORTED),
        ("equivalent", 0, 0, 0, 0, 0, SUPPORTED),  # arms that are equal in every seed
        ("above", 0, 0, 0, 1, 0, CONTRADICTED),
        ("equivalent", 2, 1.1, 3, 1, 1, CONTRADICTED),
        ("equivalent", -2, -3, -1.1, 1, 1, CONTRADICTED),
        ("equivalent", 0.9, 0.5, 1.3, 0.4, 0.4, UNDECIDED),  # a difference, perhaps a small one
    ],
)
def test_verdicts(expected, difference, low, high, p_family, p_equivalence, said):
    numbers = {"difference": difference, "low": low, "high": high, "p_family": p_family}
    row = {**numbers, "p_equivalence": p_equivalence, "equivalence": 1.0, "expected": expected}
    assert verdict(pd.Series(row)) == said


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_claim_of_a_study_can_be_decided(path, tmp_path):
    """Before anything is trained: a typing error would show after the last cell."""
    study = load_study(path)
    if not study.comparisons:
        return
    make_up_cells(study, tmp_path)
    grid = Grid(study)
    if study.select:
        grid = confirmed(grid, choose(grid, tmp_path))
    found = tables.read_study(grid, tmp_path)[0]
    assert set(claims.comparisons(study, found)) == {one.name for one in study.comparisons}
    if study.claims:
        assert len(claims.claims(study, found)) == len(study.claims)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"comparisons.0.against": {"margin": 5}}, r"comparisons.0.against.margin: 5: no such val"),
        ({"comparisons.0.against": {"rate": 5}}, r"comparisons.0.against: rate: not an axis; al"),
        ({"comparisons.0.against": {}}, r"comparisons.0.against: .*at least 1"),
        ({"comparisons.0.where": {"negatives": [1, 9]}}, r"comparisons.0.where.negatives: 9: no"),
        ({"comparisons.0.pool": ["margin"]}, r"comparisons.0.pool: margin: must be one of meth"),
        ({"comparisons.0.protocol": "x"}, r"comparisons.0.protocol: x: must be one of linear-l"),
        ({"comparisons.0.equivalence": 0}, r"comparisons.0.equivalence: 0: .*greater than 0"),
        ({"comparisons.0.equivalence": None}, r"claims.2.expected: equivalent: eqco has no equ"),
        ({"claims.0.comparison": "y"}, r"claims.0.comparison: y: must be one of eqco"),
        ({"claims.0.expected": "better"}, r"claims.0.expected: 'better': .*'above', 'below' or"),
        ({"claims.0.where": {"negatives": 2}}, r"claims.0.where.negatives: 2: no such value"),
        ({"comparisons.0.protocol": "linear"}, r"claims.0.protocol: knn: eqco is by linear alo"),
    ],
)
def test_a_mistake_is_one_line(tiny_values, change, message):
    values = with_values(with_values(tiny_values, CHANGES), change)
    with pytest.raises(InputError, match=message) as error:
        parse_study(values, "tiny.yaml")
    assert "\n" not in str(error.value)


def test_a_claim_that_leaves_several_rows_is_told(tiny_values, study, accuracies):
    values = with_values(with_values(tiny_values, CHANGES), {"claims.0.where": {}})
    with pytest.raises(InputError, match=r"claims.0.where: must leave one row of eqco: .*negativ"):
        claims.claims(parse_study(values, "tiny.yaml"), accuracies)


def test_claims_and_comparisons_are_in_no_configuration(tiny_values, study):
    plain = parse_study(
        with_values(tiny_values, {k: v for k, v in CHANGES.items() if k.startswith("grid")}), "x"
    )
    hashes = [[one.hash for one in Grid(each).cells.values()] for each in (study, plain)]
    assert hashes[0] == hashes[1]


def test_when_a_claim_was_stated_is_told_by_git(tmp_path, tiny_values):
    """A claim that is changed after its result is another claim."""

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    def commit() -> None:
        git("add", "-A")
        git("commit", "-qm", "x")

    def write(changes: dict) -> None:
        file.write_text(yaml.safe_dump(with_values(with_values(tiny_values, CHANGES), changes)))

    file, cells = tmp_path / "tiny.yaml", tmp_path / "cells.jsonl"
    write({})
    assert stated(file, 0, cells) == "unknown"  # no repository
    git("init", "-q")
    commit()
    assert stated(file, 0, cells) == "before"
    cells.write_text("a result\n")
    commit()
    write({"pretrain.lr": 0.02})
    commit()
    assert stated(file, 0, cells) == "before"
    write({"claims.0.expected": "below"})
    assert stated(file, 0, cells) == "after"
    commit()
    assert stated(file, 0, cells) == "after"
    assert stated(file, 1, cells) == "before"
    write({"comparisons.0.equivalence": 9.0})
    assert stated(file, 1, cells) == "after"  # its comparison is another


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_claims_of_a_page_are_what_the_results_say(page, tmp_path):
    """As `make claims` writes them."""
    found = Path(shutil.copy(page, tmp_path))
    write_claims(ROOT / "params", ROOT / "results", [found])

    def table(file: Path) -> list[list[str]]:
        (marks,) = MARKS.finditer(file.read_text())
        lines = [line for line in marks[0].splitlines() if line.startswith("|")]
        cells = [[cell.strip() for cell in line.split("|")] for line in lines]
        # a link is from its page; a clone of the last commit alone cannot say what was before
        last = -2 if "unknown" in marks[0] else None  # a page in short has no such column
        return [[cell for cell in row[:last] if not cell.startswith("[")] for row in cells[2:]]

    assert table(found) == table(page)


def test_a_block_may_be_of_several_studies_in_their_order(tmp_path):
    page = tmp_path / "page.md"
    names = "equilibrium, batch-cpu"
    page.write_text(f"<!-- claims of {names}: written by eqco claims -->\nx\n<!-- claims end -->\n")
    write_claims(ROOT / "params", ROOT / "results", [page])
    rows = [line for line in page.read_text().splitlines() if "comparisons.md" in line]
    assert ["equilibrium" in row for row in rows] == [True] * 4 + [False]


def test_a_block_may_be_of_one_study(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- claims of batch-cpu: written by eqco claims -->\nx\n<!-- claims end -->\nb\n"
    )
    write_claims(ROOT / "params", ROOT / "results", [page])
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("a", "b")
    assert "x" not in lines
    assert len([line for line in lines if line.startswith("| In batches of 32")]) == 1
    assert not [line for line in lines if "fashion-mnist" in line]


def test_a_block_may_be_of_some_claims_in_short(tmp_path):
    page = tmp_path / "page.md"
    marks = "<!-- claims in short of flatness 7 1, batch-cpu: written by eqco claims -->"
    page.write_text(f"{marks}\n<!-- claims end -->\n")
    write_claims(ROOT / "params", ROOT / "results", [page])
    head, *rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    assert [cell.strip() for cell in head.split("|")][-3:] == ["by", "study", ""]
    stated_claims = yaml.safe_load((ROOT / "params" / "flatness.yaml").read_text())["claims"]
    expected = [stated_claims[i]["claim"] for i in (6, 0)] + ["In batches of 32"]
    assert all(claim in row for claim, row in zip(expected, rows, strict=True))


@pytest.mark.parametrize("number", ["0", "99", "one"])
def test_a_claim_that_is_not_there_is_told(tmp_path, number):
    page = tmp_path / "page.md"
    page.write_text(
        f"<!-- claims of flatness {number}: written by eqco claims -->\n<!-- claims end -->\n"
    )
    before = page.read_text()
    with pytest.raises(
        InputError, match=f"flatness {number}: {number}: must be a study and numbers"
    ):
        write_claims(ROOT / "params", ROOT / "results", [page])
    assert page.read_text() == before


def test_a_page_without_marks_is_told(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n")
    with pytest.raises(InputError, match=r"page.md: has no lines <!-- claims"):
        write_claims(ROOT / "params", ROOT / "results", [page])
    assert page.read_text() == "# A page\n"
