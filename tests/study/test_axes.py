"""Keys of the recipe as axes: the same cell as with the value in the recipe itself."""

import re
from typing import Any

import pytest
import torch
from helpers import ROOT, cells, make_up_cells, with_values

from eqco.report import charts, page, tables
from eqco.report.lines import lines_of
from eqco.study.axes import KEYS, LISTS, name_of, text
from eqco.study.cell import Cell
from eqco.study.fields import LOSS_SETTINGS
from eqco.study.grid import Grid
from eqco.study.load import parse_study
from eqco.study.quick import shrink
from eqco.study.study import config_hash
from eqco.training.step import Training

CPU = torch.device("cpu")
# two values of every key that a recipe has
VALUES: dict[str, list[Any]] = {
    "alpha": [16, 32.5],
    "temperature": [0.1, 1],
    "augment.crop": [[0.3, 1], None],
    "augment.flip": [0.25, 0.5],
    "augment.jitter.p": [0.5, 1],
    "augment.jitter.brightness": [0.1, 0.2],
    "augment.jitter.contrast": [0.1, 0.2],
    "augment.jitter.saturation": [0.1, 0.2],
    "augment.jitter.hue": [0.1, 0.2],
    "augment.grayscale": [0.1, 0.2],
    "augment.blur.p": [0.1, 0.2],
    "augment.blur.sigma": [[0.1, 1], [0.2, 2]],
    "augment.blur.kernel": [3, 5],
    "augment.erase": [0.1, 0.2],
    "network.backbone": ["conv5", "resnet18"],
    "network.stride": [1, 2],
    "network.stem": ["small", "large"],
    "network.batch_norm_groups": [1, 2],
    "network.projector": [[8], [16, 8]],
    "network.projector_norm": ["all", "none"],
    "network.predictor": [8, None],
    "network.zero_init_residual": [True, False],
    "network.weights": [str(ROOT / "LICENSE"), None],
    "pretrain.epochs": [1, 2],
    "pretrain.batch": [32, 64],
    "pretrain.lr": [0.1, 0.2],
    "pretrain.lr_per": [128, None],
    "pretrain.optimizer": ["sgd", "lars"],
    "pretrain.momentum": [0, 0.5],
    "pretrain.weight_decay": [0, "1e-3"],
    "pretrain.decay_norm_and_bias": [True, False],
    "pretrain.warmup_epochs": [0, 1],
    "pretrain.ema": [0, 0.5],
    "pretrain.sampling": ["shared", "independent"],
    "pretrain.symmetric": [False, True],
    "pretrain.batch_norm_per_view": [True, False],
    "pretrain.precision": ["float32", "bfloat16"],
    "pretrain.online": [0.1, 0.3],
    "pretrain.queue": [16, 32],
    "loss.inter": [0.5, 1],
    "loss.sigma": [0.5, 1],
    "loss.detach": [True, False],
    "loss.constant": [0.3, 0.5],
    "loss.scalar_negatives": [4, 20],
    "loss.bias": [-10, "-5e0"],
    "loss.gamma": [0.9, 1],
    "loss.slope": [0.5, 1],
    "loss.threshold": [0, 0.5],
}


@pytest.fixture
def base(tiny_values) -> dict[str, Any]:
    """A study of one cell, which reads every key."""
    block = {"methods": ["moco"], "negatives": [16], "margins": ["eqco"], "seeds": [0]}
    augment = {"jitter": {"p": 0.8}, "blur": {"p": 0.5, "kernel": 3}}
    changes = {"grid": [block], "augment": augment, "loss": {}, "pretrain.queue": 64}
    return with_values(tiny_values, changes)


def test_every_key_of_the_recipe_can_be_an_axis_by_a_name_of_its_own():
    assert set(VALUES) == set(KEYS)
    names = [*map(name_of, KEYS), *(name for name in Cell.model_fields if name not in KEYS)]
    names = [name for name in names if name not in ("batch", "lr")]  # both, and the same
    assert len(names) == len(set(names))
    assert all(map(str.isidentifier, names))  # Snakemake's wildcards


@pytest.mark.parametrize("key", KEYS)
def test_a_cell_is_the_same_as_with_its_value_in_the_recipe(base, key):
    changes: dict[str, Any] = {}
    if key.startswith("loss."):
        loss = next(loss for loss, read in LOSS_SETTINGS.items() if key.split(".")[1] in read)
        changes = {"grid.0.losses": [loss], "grid.0.margins": [0]}
    if key == "network.zero_init_residual":
        changes = {"network.backbone": "resnet18"}
    if key == "pretrain.batch_norm_per_view":
        changes = {"grid.0.methods": ["simclr"]}
    base = with_values(base, changes)
    axis = parse_study(with_values(base, {"grid.0.with": {key: VALUES[key]}}), "axis")
    assert len(cells(axis)) == 2
    for value, (path, cell) in zip(VALUES[key], cells(axis).items(), strict=True):
        plain = parse_study(with_values(base, {key: value}), "plain")
        (one,) = cells(plain).values()
        assert f"/{name_of(key)}~{text(plain.value(key))}/" in path
        own = axis.of(cell)
        for section in ("augment", "network", "loss"):
            assert getattr(own, section) == getattr(plain, section)
        for name, expected in plain.pretrain:
            found = getattr(cell if name in ("batch", "lr") else own.pretrain, name)
            assert found == (one.lr if name == "lr" else expected), name
        if key not in ("pretrain.optimizer", "pretrain.weight_decay"):  # they stand in the cell
            assert config_hash(axis.resolve(cell)) == config_hash(plain.resolve(one))


@pytest.mark.parametrize(("name", "key"), LISTS.items())
def test_a_blocks_own_list_is_short_for_a_key(base, name, key):
    first, second = (
        Grid(parse_study(with_values(base, change), "x"))
        for change in ({f"grid.0.{name}": VALUES[key]}, {"grid.0.with": {key: VALUES[key]}})
    )
    assert list(first.cells.items()) == list(second.cells.items())


def test_mappings_in_a_list_are_blocks_that_differ_in_them(base):
    tied = [{"pretrain.lr": [c], "pretrain.weight_decay": [1 / c]} for c in (1, 3)]
    tied += [{"pretrain.ema": [0.5, 0.9]}]
    together = parse_study(with_values(base, {"grid.0.with": tied}), "x")
    apart = [{**base["grid"][0], "with": mapping} for mapping in tied]
    assert Grid(together).cells == Grid(parse_study({**base, "grid": apart}, "x")).cells
    assert list(cells(together))[1:3] == [
        f"method~moco/negatives~16/margin~eqco/{axes}/seed~0"
        for axes in (
            "lr~3/weight_decay~0.333333333333/ema~0.999",
            "lr~0.01/weight_decay~0.0001/ema~0.5",
        )
    ]


@pytest.mark.parametrize(
    "key",
    ["augment.flip", "network.projector", "pretrain.ema", "pretrain.weight_decay", "loss.inter"],
)
def test_a_training_has_the_values_of_its_cell(base, digits, key):
    change = {"grid.0.losses": ["dual-temperature"], "grid.0.margins": [0], "pretrain.lr": 0.1}
    base = with_values(base, change)
    axis = parse_study(with_values(base, {"grid.0.with": {key: VALUES[key]}}), "axis")
    plain = parse_study(with_values(base, {key: VALUES[key][1]}), "plain")
    trained = []
    for study, cell in ((axis, list(cells(axis).values())), (plain, [*cells(plain).values()])):
        training = Training(study, cell[-1], digits, CPU)
        training.advance()
        training.advance()
        trained.append(training.tensors())
    assert all(torch.equal(trained[1][name], tensor) for name, tensor in trained[0].items())
    other = Training(axis, next(iter(cells(axis).values())), digits, CPU)
    other.advance()
    other.advance()
    assert any(
        tensor.shape != trained[0][name].shape or not torch.equal(tensor, trained[0][name])
        for name, tensor in other.tensors().items()
        if name in trained[0]
    )


def test_an_axis_stands_in_table_figure_and_report(base, tmp_path):
    change = {"grid.0.with": {"pretrain.sampling": ["shared", "independent"]}}
    change |= {"grid.0.negatives": [4, 16]}
    grid = Grid(parse_study(with_values(base, change), "x"))
    make_up_cells(grid.study, tmp_path)
    accuracies, _ = tables.read_study(grid, tmp_path)
    assert list(accuracies["sampling"].unique()) == ["shared", "independent"]
    assert {name.partition(", ")[2] for name in lines_of(accuracies)} == {
        "sampling shared",
        "sampling independent",
    }
    table = tables.aggregate(accuracies)
    assert charts.switches(table)["sampling"] == ["all", "shared", "independent"]
    assert "moco K=4 m=eqco sampling=shared" in tables.metrics(table)["knn"]
    source = tmp_path / "a" / "study.yaml"
    html = page.render(grid, tmp_path, source, tmp_path / "none.csv")
    assert re.search(r"<label>sampling\s*<select id=\"sampling\"", html)
    assert ">sampling</button></th>" in html


def test_of_an_axis_that_no_loss_of_a_row_reads_the_table_says_nothing(base, tmp_path):
    block = {**base["grid"][0], "margins": [0]}
    dual = {**block, "losses": ["dual-temperature"], "with": {"loss.inter": [0.5, 1]}}
    grid = Grid(parse_study({**base, "grid": [block, dual]}, "x"))
    make_up_cells(grid.study, tmp_path)
    accuracies, _ = tables.read_study(grid, tmp_path)
    assert list(accuracies["inter"].unique()) == ["", "0.5", "1"]
    dual = {f"dual-temperature, inter {value}" for value in ("0.5", "1")}
    assert set(lines_of(accuracies)) == {"InfoNCE (m = 0)", *dual}


def test_quick_keeps_the_first_value_of_an_axis(base):
    axes = {"pretrain.ema": [0.5, 0.9], "pretrain.epochs": [50, 100], "pretrain.queue": [4096]}
    small = shrink(parse_study(with_values(base, {"grid.0.with": axes}), "x"))
    ((path, cell),) = cells(small).items()
    assert "/epochs~2/ema~0.5/queue~64/" in path
    assert small.of(cell).pretrain.batch == cell.batch == 16


@pytest.mark.parametrize("method", ["simo", "moco"])
def test_quick_has_no_more_scalar_negatives_than_its_batch_allows(base, method):
    block = {"methods": [method], "negatives": [100], "losses": ["dcl-by-scalar-negatives"]}
    changes = {f"grid.0.{key}": value for key, value in block.items()}
    for given in (
        {"loss": {"scalar_negatives": 200}},
        {"grid.0.with": {"loss.scalar_negatives": [200]}},
    ):
        study = parse_study(with_values(base, {**changes, **given, "pretrain.queue": 400}), "x")
        small = shrink(study)
        (cell,) = cells(small).values()
        assert small.of(cell).loss.scalar_negatives == cell.negatives == 15
