"""The epochs in TensorBoard's files, read by TensorBoard itself."""

import json
import sys

import pytest
from helpers import TINY

from eqco.commands.cli import app
from eqco.commands.tensorboard import reporter
from eqco.errors import InputError

CELL = "method~simo/negatives~16/margin~0/seed~0"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def scalars(folder) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder)).Reload()
    return {
        name: [(one.step, one.value) for one in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def test_a_training_writes_its_history(digits, tmp_path, monkeypatch):
    """The variable, which a grid's jobs inherit, asks for it too; the encoder stays the same."""
    encoders = []
    for name, variable in (("with", str(tmp_path / "logs")), ("without", None)):
        if variable:
            monkeypatch.setenv("EQCO_TENSORBOARD", variable)
        else:
            monkeypatch.delenv("EQCO_TENSORBOARD")
        out = tmp_path / name
        command = ["pretrain", TINY, "--cell", CELL, "--data", digits, "--out", out, "--threads", 1]
        app(list(map(str, command)), standalone_mode=False)
        encoders.append((out / "encoder.safetensors").read_bytes())
    assert encoders[0] == encoders[1]
    history = json.loads((tmp_path / "with" / "pretrain.json").read_text())["history"]
    found = scalars(tmp_path / "logs" / CELL)
    for entry in history:
        for name, value in entry.items():
            if value is not None and name != "epoch":
                assert dict(found[name])[entry["epoch"]] == pytest.approx(value, rel=1e-6)
    assert list(tmp_path.glob("logs/**/events*"))[1:] == []


def test_an_epoch_that_is_trained_again_stands_once(tmp_path):
    for losses in ({1: 3.0, 2: 2.0, 3: 1.0}, {3: 1.5, 4: 0.5}):  # killed after its checkpoint
        report = reporter(tmp_path, CELL)
        for epoch, loss in losses.items():
            report({"epoch": epoch, "loss": loss, "weight": None})
    assert scalars(tmp_path / CELL) == {"loss": [(1, 3.0), (2, 2.0), (3, 1.5), (4, 0.5)]}


def test_a_missing_extra_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InputError, match=r'pip install "eqco\[tensorboard\]"') as error:
        reporter(tmp_path, CELL)
    assert str(error.value).startswith("--tensorboard: tensorboard is not installed")
