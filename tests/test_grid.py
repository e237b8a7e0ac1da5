"""Cells of a grid: how many, unique, and where."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snakemake.utils import Paramspace

from eqco.errors import InputError
from eqco.study.grid import axes, cells, find, text
from eqco.study.study import parse_study


def lists(elements):
    return st.lists(elements, min_size=1, max_size=3, unique=True)


blocks = st.fixed_dictionaries(
    {
        "methods": st.just(["simo"]),
        "negatives": lists(st.integers(1, 255)),
        "margins": lists(st.sampled_from([0, 0.1, -0.5, "eqco", "inf"])),
        "seeds": lists(st.integers(0, 2**32 - 1)),
    },
    optional={"temperatures": lists(st.sampled_from([0.07, 0.1, 0.2, 1]))},
)


@given(block=blocks)
@settings(deadline=None)
def test_a_block_is_every_combination_once(tiny_values, block):
    study = parse_study({**tiny_values, "grid": [block]}, "x")
    expected = 1
    for values in block.values():
        expected *= len(values)
    found = cells(study)
    assert len(found) == len(set(found.values())) == expected
    for path in found:
        assert find(study, path) == found[path]


@given(block=blocks)
@settings(deadline=None)
def test_paths_are_snakemakes_paramspace(tiny_values, block):
    study = parse_study({**tiny_values, "grid": [block]}, "x")
    found = list(cells(study))
    rows = pd.DataFrame(dict(axis.split("~", 1) for axis in path.split("/")) for path in found)
    space = Paramspace(rows)
    assert list(space.instance_patterns) == found
    assert space.wildcard_pattern == "/".join(f"{axis}~{{{axis}}}" for axis in axes(study))


def test_the_path_of_the_demo(tiny):
    assert list(cells(tiny))[:3] == [
        "method~simo/negatives~1/margin~0/seed~0",
        "method~simo/negatives~1/margin~0/seed~1",
        "method~simo/negatives~1/margin~eqco/seed~0",
    ]


def test_optional_axes_stand_in_every_path(study_with, tiny_values):
    block = tiny_values["grid"][0]
    grid = [
        {**block, "margins": [0]},
        {**block, "margins": ["eqco"], "alphas": [16, 65536], "temperatures": [0.07]},
    ]
    found = cells(study_with({"grid": grid}))
    assert len(found) == 4 + 8
    assert "method~simo/negatives~1/margin~0/alpha~256/temperature~0.2/seed~0" in found
    path = "method~simo/negatives~16/margin~eqco/alpha~65536/temperature~0.07/seed~1"
    assert (found[path].alpha, found[path].temperature) == (65536, 0.07)


def test_a_batch_sweep_with_its_learning_rates(study_with, tiny_values):
    block = {**tiny_values["grid"][0], "negatives": [1], "margins": [0], "seeds": [0]}
    grid = [{**block, "batches": [n], "lrs": [0.001 * n]} for n in (32, 64)]
    study = study_with({"grid": grid})
    found = cells(study)
    assert list(found) == [
        "method~simo/negatives~1/margin~0/batch~32/lr~0.032/seed~0",
        "method~simo/negatives~1/margin~0/batch~64/lr~0.064/seed~0",
    ]
    assert [(cell.batch, cell.lr) for cell in found.values()] == [(32, 0.032), (64, 0.064)]


def test_a_weight_decay_that_goes_with_its_learning_rate(study_with, tiny_values):
    """Blocks that name none have the recipe's; other studies' hashes do not know it."""
    block = {**tiny_values["grid"][0], "negatives": [1], "margins": [0], "seeds": [0]}
    grid = [block, {**block, "lrs": [0.03], "weight_decays": [1e-4 / 3]}]
    study = study_with({"grid": grid, "pretrain.weight_decay": 1e-4})
    found = cells(study)
    assert list(found) == [
        "method~simo/negatives~1/margin~0/lr~0.01/weight_decay~0.0001/seed~0",
        "method~simo/negatives~1/margin~0/lr~0.03/weight_decay~3.33333333333e-05/seed~0",
    ]
    plain, other = (study.resolve(cell) for cell in found.values())
    assert other["cell"]["weight_decay"] == 1e-4 / 3
    assert "weight_decay" not in plain["pretrain"]
    without = study_with({"grid": [block]})
    (cell,) = cells(without).values()
    assert "weight_decay" not in without.resolve(cell)["cell"]
    assert without.resolve(cell)["pretrain"]["weight_decay"] == 1e-4


def test_losses_as_an_axis(study_with, tiny_values):
    block = {**tiny_values["grid"][0], "negatives": [1], "seeds": [0]}
    grid = [block, {**block, "margins": [0], "losses": ["dclw", "dual-temperature"]}]
    assert list(cells(study_with({"grid": grid}))) == [
        "method~simo/loss~info-nce/negatives~1/margin~0/seed~0",
        "method~simo/loss~info-nce/negatives~1/margin~eqco/seed~0",
        "method~simo/loss~dclw/negatives~1/margin~0/seed~0",
        "method~simo/loss~dual-temperature/negatives~1/margin~0/seed~0",
    ]


def test_a_cell_in_two_blocks_is_an_error(study_with, tiny_values):
    block = tiny_values["grid"][0]
    study = study_with({"grid": [block, {**block, "negatives": [16]}]})
    with pytest.raises(
        InputError, match=r"^s: grid\.1: method~simo/negatives~16/margin~0/seed~0: is in grid\.0"
    ):
        cells(study, "s")


def test_a_cell_that_is_not_in_the_grid(tiny):
    with pytest.raises(
        InputError, match="no cell 'method~simo/negatives~2' in its grid; the first"
    ):
        find(tiny, "method~simo/negatives~2")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(16, "16"), (0.0, "0"), (0.2, "0.2"), (256.0, "256"), (1e-05, "1e-05"), ("eqco", "eqco")],
)
def test_values_as_text(value, expected):
    assert text(value) == expected


def test_infinity_as_text():
    assert text(float("inf")) == "inf"
