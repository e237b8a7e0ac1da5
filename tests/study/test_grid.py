"""Cells of a grid: how many, unique, and where."""

import math

import pandas as pd
import pytest
from helpers import cells, with_values
from hypothesis import given
from hypothesis import strategies as st
from snakemake.utils import Paramspace

from eqco.errors import InputError
from eqco.losses import eqco_margin
from eqco.study.axes import text
from eqco.study.cell import Cell
from eqco.study.grid import Grid
from eqco.study.load import parse_study
from eqco.study.methods import METHODS
from eqco.study.study import config_hash


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
def test_a_block_is_every_combination_once(tiny_values, block):
    grid = Grid(parse_study({**tiny_values, "grid": [block]}, "x"))
    expected = 1
    for values in block.values():
        expected *= len(values)
    assert len(grid.cells) == len({one.cell for one in grid.cells.values()}) == expected
    for path, one in grid.cells.items():
        assert grid.find(path, "x") is one
        assert one.config == grid.study.resolve(one.cell)
        assert one.hash == config_hash(one.config)


@given(block=blocks)
def test_paths_are_snakemakes_paramspace(tiny_values, block):
    study = parse_study({**tiny_values, "grid": [block]}, "x")
    found = list(cells(study))
    rows = pd.DataFrame(dict(axis.split("~", 1) for axis in path.split("/")) for path in found)
    space = Paramspace(rows)
    assert list(space.instance_patterns) == found
    assert space.wildcard_pattern == "/".join(f"{axis}~{{{axis}}}" for axis in Grid(study).axes)


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
    message = r"^tiny\.yaml: grid\.1: method~simo/negatives~16/margin~0/seed~0: is in grid\.0"
    with pytest.raises(InputError, match=message):
        study_with({"grid": [block, {**block, "negatives": [16]}]})


def test_a_cell_that_is_not_in_the_grid(tiny):
    with pytest.raises(InputError, match=r"^s: no cell 'method~simo/negatives~2' in its grid; the"):
        Grid(tiny).find("method~simo/negatives~2", "s")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(16, "16"), (0.0, "0"), (0.2, "0.2"), (256.0, "256"), (1e-05, "1e-05"), ("eqco", "eqco")],
)
def test_values_as_text(value, expected):
    assert text(value) == expected


def test_infinity_as_text():
    assert text(float("inf")) == "inf"


@given(
    methods=lists(st.sampled_from(list(METHODS))),
    batches=lists(st.integers(2, 256)),
    queue=st.integers(1, 100),
)
def test_all_negatives_are_a_block_for_each_method_and_batch(tiny_values, methods, batches, queue):
    """In the order of batches: what such studies were written as."""
    block = {"methods": methods, "negatives": "all", "margins": [0, "eqco"], "seeds": [0, 1]}
    values = with_values(tiny_values, {"pretrain.queue": queue})
    every = parse_study({**values, "grid": [{**block, "batches": batches}]}, "x")
    blocks = [
        {
            **block,
            "methods": [method],
            "negatives": [METHODS[method].candidates(batch, queue)],
            "batches": [batch],
        }
        for batch in batches
        for method in methods
    ]
    assert Grid(every).cells == Grid(parse_study({**values, "grid": blocks}, "x")).cells


@given(
    batches=lists(st.integers(2, 256)),
    lr=st.floats(1e-4, 10),
    lr_per=st.integers(1, 1024),
)
def test_the_linear_scaling_rule_is_a_learning_rate_for_each_batch(
    tiny_values, batches, lr, lr_per
):
    block = {"methods": ["moco"], "negatives": [1], "margins": [0, "eqco"], "seeds": [0, 1]}
    values = with_values(tiny_values, {"pretrain.lr": lr})
    blocks = [{**block, "batches": [n], "lrs": [lr * n / lr_per]} for n in batches]
    listed = Grid(parse_study({**values, "grid": blocks}, "x"))
    by_rule = with_values(values, {"pretrain.lr_per": lr_per})
    scaled = parse_study({**by_rule, "grid": [{**block, "batches": batches}]}, "x")
    assert Grid(scaled).cells == listed.cells
    of_lrs = {**by_rule, "pretrain": {**by_rule["pretrain"], "lr": 1}}
    scaled = parse_study({**of_lrs, "grid": [{**block, "batches": batches, "lrs": [lr]}]}, "x")
    assert Grid(scaled).cells == listed.cells


def test_the_linear_scaling_rule_with_the_recipes_batch_alone(study_with):
    cell = next(iter(Grid(study_with({"pretrain.lr_per": 128})).cells.values()))
    assert cell.cell.lr == 0.01 * 256 / 128
    assert "/lr~" not in cell.path


@given(
    negatives=st.integers(1, 2**20),
    alpha=st.floats(1e-3, 1e6),
    temperature=st.floats(0.01, 10),
)
def test_the_margin_of_a_cell_is_the_losses_margin(negatives, alpha, temperature):
    values = {"method": "moco", "batch": 2, "lr": 1, "seed": 0, "negatives": negatives}
    cell = Cell(margin="eqco", alpha=alpha, temperature=temperature, **values)
    assert cell.m == eqco_margin(negatives, alpha, temperature)
    assert cell.effective_alpha == alpha
    number = Cell(margin=cell.m, alpha=None, temperature=temperature, **values)
    assert number.m == cell.m
    assert number.effective_alpha == pytest.approx(alpha)


def test_the_effective_alpha_without_a_margin_and_with_an_infinite_one():
    values = {"method": "moco", "batch": 2, "lr": 1, "seed": 0, "negatives": 16}
    plain, dcl = (Cell(margin=m, alpha=None, temperature=0.2, **values) for m in (0, math.inf))
    assert (plain.m, plain.effective_alpha) == (0, 16)
    assert (dcl.m, dcl.effective_alpha) == (math.inf, math.inf)
