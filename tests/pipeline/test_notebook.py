"""docs/notebook.py runs, and what it says of the losses and of a committed study is so."""

import re
import runpy

import pandas as pd
import pytest
import torch
from helpers import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.py"


@pytest.fixture(scope="module")
def names():
    """The variables after the last cell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        before = torch.get_rng_state()
        yield runpy.run_path(str(NOTEBOOK))
        torch.set_rng_state(before)


def test_each_cell_is_whole_and_text_or_code():
    first, *cells = re.split(r"^# %%", NOTEBOOK.read_text(), flags=re.M)
    assert first.startswith('"""')
    assert len(cells) > 10
    for cell in cells:
        head, _, body = cell.partition("\n")
        assert head in ("", " [markdown]")
        if head:
            assert all(line.startswith("#") for line in body.strip().splitlines()), body
        else:
            compile(body, "cell", "exec")


def test_what_it_says_of_the_losses(names):
    assert names["largest_error"] < 1e-6
    weights = names["mean_weights"]
    assert (weights["DCL"] == 1).all()
    assert weights["InfoNCE"].is_monotonic_increasing
    assert weights["InfoNCE"][1] < 0.1 < weights["InfoNCE"][255]  # small with few negatives
    assert weights["EqCo"].max() - weights["EqCo"].min() < 0.05  # hardly depends on K


def test_its_differences_are_those_of_the_comparisons(names):
    found = pd.read_csv(ROOT / "results" / "fashion-mnist" / "comparisons.csv")
    found = found[(found["comparison"] == "eqco") & (found["protocol"] == "linear-lbfgs")]
    expected = found.set_index("negatives")[["difference", "low", "high"]]
    assert len(expected) == len(names["differences"]) == 5
    for k, numbers in names["differences"].items():
        assert numbers == pytest.approx(expected.loc[k].tolist(), abs=1e-4)


def test_its_encoder_gives_features(names):
    assert names["features"].shape == (1797, 256)
    assert names["features"].isfinite().all()
    assert 50 < names["accuracy"] <= 100  # a tenth by chance
