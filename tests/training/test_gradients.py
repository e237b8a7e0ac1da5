"""The mean parameter gradients by loss and K, against every batch's own, kept and multiplied."""

from itertools import permutations
from statistics import fmean

import pytest
import torch
import yaml
from helpers import cells, eqco, with_values
from torch.nn.utils import parameters_to_vector

from eqco.commands.theory import initial
from eqco.data.views import Views
from eqco.losses import info_nce
from eqco.methods import build
from eqco.runtime.seeds import draw_seed
from eqco.training.gradients import LOSSES, SAMPLINGS, compare

CPU = torch.device("cpu")


@pytest.fixture
def study(study_with):
    return study_with({"pretrain.batch": 128, "grid.0.negatives": [16]})


@pytest.fixture
def views(study, digits) -> Views:
    options = {"batch": 128, "views": 2, "epochs": 1, "seed": 0, "device": CPU}
    made = Views(digits, study.data, study.augment, **options)
    made.steps = 8
    return made


def test_it_is_the_product_of_different_batches(study, views):
    cell = next(iter(cells(study).values()))
    encoder = initial(study, 1)
    rows = compare(study, cell, encoder, views, [4, 127])
    assert len(rows) == len(SAMPLINGS) * len(LOSSES) * 2
    gradients = {4: [], 127: []}
    for step in range(8):
        for k, found in gradients.items():
            recipe = study.pretrain.model_copy(update={"sampling": "independent"})
            method = build(cell.model_copy(update={"negatives": k}), encoder, recipe).train()
            draw = torch.Generator().manual_seed(draw_seed(cell.seed, "negatives", step))
            loss = info_nce(*method(*views(step), draw), temperature=cell.temperature).mean()
            loss.backward()
            parts = [p.grad for p in method.parameters() if p.grad is not None]
            found.append(parameters_to_vector(parts).double())
            method.zero_grad()

    def product(a: int, b: int) -> float:
        pairs = permutations(range(8), 2)
        return fmean(float(gradients[a][i] @ gradients[b][j]) for i, j in pairs)

    few, all_, both = product(4, 4), product(127, 127), product(4, 127)

    def signal_to_noise(k: int, square: float) -> float:
        return square / (fmean(float(g @ g) for g in gradients[k]) - square)

    (row,) = [
        row
        for row in rows
        if (row["sampling"], row["loss"], row["negatives"]) == ("independent", "InfoNCE", 4)
    ]
    assert row["cosine"] == pytest.approx(both / (few * all_) ** 0.5, rel=1e-3)
    assert row["norm"] == pytest.approx((few / all_) ** 0.5, rel=1e-3)
    expected = signal_to_noise(4, few) / signal_to_noise(127, all_)
    assert row["signal_to_noise"] == pytest.approx(expected, rel=1e-3)


def test_the_reference_is_1(study, views):
    cell = next(iter(cells(study).values()))
    for row in compare(study, cell, initial(study, 1), views, [4, 127]):
        if row["loss"] == "InfoNCE" and row["negatives"] == 127:
            numbers = [row[name] for name in ("cosine", "norm", "signal_to_noise")]
            assert numbers == pytest.approx([1, 1, 1])


@pytest.mark.slow
def test_the_command_writes_tables_and_figures(digits, tiny_values, tmp_path):
    study = tmp_path / "small.yaml"
    study.write_text(yaml.safe_dump(with_values(tiny_values, {"pretrain.batch": 32})))
    done = eqco("theory", study, "--data", digits, "--out", tmp_path, "--parameters")
    assert done.returncode == 0, done.stderr
    assert "initial: batch 16 of 16" in done.stderr
    assert "| EqCo" in done.stdout
    for suffix in ("csv", "md", "svg", "png"):
        assert (tmp_path / f"gradients.{suffix}").stat().st_size > 500
