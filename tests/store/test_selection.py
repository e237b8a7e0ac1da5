"""The choice against pandas, and what may not be selected."""

import json

import pandas as pd
import pytest
from helpers import make_up_cells, with_values
from hypothesis import given, settings
from hypothesis import strategies as st

from eqco.errors import InputError
from eqco.report import selection, tables
from eqco.store.archive import KEPT
from eqco.store.selection import choose, confirmed, needed
from eqco.study.grid import Grid
from eqco.study.load import parse_study
from eqco.study.selection import planned

ON = "linear@validation"
BLOCK = {"methods": ["simo", "moco"], "negatives": [1, 4], "margins": [0], "seeds": [0, 1, 2]}
SELECTS = {
    "data.validation": 100,
    "select": {"axis": "lr", "protocol": ON, "seeds": [7, 8]},
    "grid": [
        {**BLOCK, "lrs": [0.01, 0.02, 0.03, 0.04]},
        {**BLOCK, "margins": ["eqco"], "lrs": [0.05]},
    ],
}


@pytest.fixture(scope="module")
def study(tiny_values):
    return parse_study(with_values(tiny_values, SELECTS), "tiny.yaml")


@pytest.fixture
def results(study, tmp_path):
    make_up_cells(study, tmp_path)
    return tmp_path


def edit(results, change):
    """Change the archived files of each cell that ``change(path, files)`` alters; it may drop."""
    lines = [json.loads(line) for line in (results / KEPT).read_text().splitlines()]
    kept = [files for files in lines if change(files["cell"], files) is not False]
    (results / KEPT).write_text("".join(json.dumps(files) + "\n" for files in kept))


def test_the_grid_has_the_deciding_seeds_where_there_is_something_to_select(study):
    rows = pd.DataFrame(
        {**dict(part.split("~") for part in path.split("/"))} for path in Grid(study).cells
    )
    seeds = rows.groupby(["margin", "lr"])["seed"].unique().map(sorted)
    assert all(seeds["0"].map(lambda found: found == ["0", "1", "2", "7", "8"]))
    assert list(seeds["eqco"]) == [["0", "1", "2"]]


def test_a_confirming_cell_is_the_one_that_a_study_without_select_names(study, tiny_values):
    plain = {key: value for key, value in SELECTS.items() if key != "select"}
    named = Grid(parse_study(with_values(tiny_values, plain), "tiny.yaml"))
    assert named.cells.items() <= Grid(study).cells.items()


@given(data=st.data())
@settings(max_examples=20)
def test_the_best_mean_by_pandas(study, tmp_path_factory, data):
    """Few different accuracies, so that there are ties, and failed cells."""
    results, grid, rows = tmp_path_factory.mktemp("x"), Grid(study), []
    make_up_cells(study, results)
    value = st.sampled_from([50.0, 60.0, 70.0, None])

    def change(path, files):
        if "seed~7" in path or "seed~8" in path:
            accuracy = data.draw(value)
            files["linear.json"]["accuracy"][ON] = accuracy
            if accuracy is None:
                files["pretrain.json"]["failed"] = "diverged"
                files["linear.json"].pop("accuracy")
            rows.append((*path.rsplit("/lr~", 1), accuracy))

    edit(results, change)
    frame = pd.DataFrame(rows, columns=["arm", "cell", "accuracy"])
    frame["lr"] = frame["cell"].str.split("/").str[0]
    means = frame.groupby(["arm", "lr"])["accuracy"].agg(lambda column: column.mean(skipna=False))
    if means.groupby("arm").count().min() == 0:
        with pytest.raises(InputError, match="every value of lr has a failed seed"):
            choose(grid, results)
        return
    best = means.groupby("arm").idxmax().map(lambda key: key[1])
    found = {choice.arm.name: choice.value for choice in choose(grid, results)}
    assert {name: value for name, value in found.items() if "margin~0" in name} == dict(best)
    assert {value for name, value in found.items() if "margin~eqco" in name} == {"0.05"}


def test_the_table_is_of_the_confirming_seeds(study, results):
    grid = Grid(study)
    choices = choose(grid, results)
    accuracies, _ = tables.read_study(confirmed(grid, choices), results)
    assert set(accuracies["seed"]) == {0, 1, 2}
    assert "lr" not in accuracies
    by_arm = accuracies.groupby(["method", "negatives", "margin"])["selected_lr"].unique()
    assert all(by_arm.map(len) == 1)


def test_accuracies_on_other_images_and_of_other_seeds_select_nothing(study, results):
    before = [choice.value for choice in choose(Grid(study), results)]

    def change(path, files):
        deciding = "seed~7" in path or "seed~8" in path
        for name in ("linear.json", "knn.json"):
            for protocol in files[name]["accuracy"]:
                if not deciding or protocol != ON:
                    files[name]["accuracy"][protocol] = 100.0 * ("lr~0.01" in path)

    edit(results, change)
    assert [choice.value for choice in choose(Grid(study), results)] == before


def test_what_has_to_run_is_told_as_far_as_it_is_known(study, results):
    grid = Grid(study)
    arm = "method~simo/negatives~1/margin~0"
    edit(results, lambda path, files: not (path.startswith(arm) and "seed~8" in path))
    deciding, confirming = 4 * 4 * 2, 8 * 3
    assert len(planned(grid).cells) == deciding + confirming
    assert len(needed(grid, results).cells) == deciding + confirming - 3
    with pytest.raises(InputError, match="cannot be read"):
        choose(grid, results)
    missing = [choice for choice in choose(grid, results, unfinished=True) if choice.missing]
    assert [choice.arm.name for choice in missing] == [arm]
    assert f"No `lr` is selected yet for `{arm}`." in selection.notes(study.select, missing)


def test_a_value_at_an_edge_is_told(study, results):
    def change(path, files):
        best = "lr~0.04" if "method~simo" in path else "lr~0.03"
        if "margin~0" in path:
            files["linear.json"]["accuracy"][ON] = 90.0 if best in path else 10.0

    edit(results, change)
    told = selection.notes(study.select, choose(Grid(study), results))
    assert len([line for line in told if "at an edge" in line]) == 2  # simo's two K
    assert all("method~simo" in line for line in told[1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"select.axis": "rate"}, "select.axis: rate: not an axis of the grid; allowed: method, "),
        (
            {"select.protocol": "linear"},
            "select.protocol: linear: must be one of linear-lbfgs@",
        ),
        ({"data.validation": None}, "select.protocol: linear@validation: needs data.validation"),
        ({"grid.0.seeds": [0, 8]}, "grid.0.seeds.1: 8: select.seeds has it: a seed selects or"),
        ({"grid.0.lrs": [0.01]}, "select.axis: lr: no block lists several values"),
        ({"grid.1.margins": [0]}, "grid.1: .*: is in grid.0 too; list its values of lr in one"),
        ({"select.seeds": []}, "select.seeds: .*at least 1"),
    ],
)
def test_a_mistake_is_one_line(tiny_values, change, message):
    values = with_values(with_values(tiny_values, SELECTS), change)
    with pytest.raises(InputError, match=message) as error:
        parse_study(values, "tiny.yaml")
    assert "\n" not in str(error.value)
