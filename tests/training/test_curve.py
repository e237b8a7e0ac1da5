"""kNN while a cell trains: the protocol's number, a curve, and the same encoder."""

import json
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, TINY, with_values

from eqco.commands import steps, studies
from eqco.study.grid import Grid
from eqco.study.load import load_study

CELL = "method~simo/negatives~16/margin~eqco/seed~0"
GRID = {"methods": ["simo"], "negatives": [16], "margins": ["eqco"], "seeds": [0]}


def trained(folder: Path, digits: Path, changes: dict) -> Path:
    """The folder of a study of one cell, trained for four epochs and rated by kNN."""
    values = yaml.safe_load(TINY.read_text())
    changes = {"pretrain.epochs": 4, "grid": [GRID], **changes}
    file = folder / "tiny.yaml"
    folder.mkdir()
    file.write_text(yaml.safe_dump(with_values(values, changes)))
    out = folder / "results" / "cells" / CELL
    steps.pretrain(file, CELL, digits, out, folder / "results" / "state" / CELL, threads=1)
    steps.knn_eval(file, out / "encoder.safetensors", digits, out / "knn.json")
    return folder


@pytest.fixture(scope="module")
def with_curve(tmp_path_factory, digits) -> Path:
    folder = tmp_path_factory.mktemp("curve") / "study"
    return trained(folder, digits, {"evaluate.every": 2})


def test_the_last_point_is_the_protocols_and_the_encoder_is_that_without(
    with_curve, tmp_path, digits
):
    without = trained(tmp_path / "study", digits, {})
    encoders, summaries, rated = zip(
        *(
            [
                (folder / "results" / "cells" / CELL / name).read_bytes()
                for name in ("encoder.safetensors", "pretrain.json", "knn.json")
            ]
            for folder in (with_curve, without)
        ),
        strict=True,
    )
    assert encoders[0] == encoders[1]
    assert rated[0] == rated[1]
    curve = [entry.get("knn") for entry in json.loads(summaries[0])["history"]]
    assert [value is None for value in curve] == [True, False, True, False]
    assert curve[-1] == json.loads(rated[0])["accuracy"]["knn"]
    assert 10 < curve[1] < 100
    assert not any("knn" in entry for entry in json.loads(summaries[1])["history"])
    hashes = [Grid(load_study(f / "tiny.yaml")).cells[CELL].hash for f in (with_curve, without)]
    assert hashes[0] == hashes[1]


def test_the_page_has_the_curve(with_curve):
    studies.report(
        with_curve / "tiny.yaml",
        with_curve / "results",
        ROOT / "published" / "accuracies.csv",
    )
    page = (with_curve / "results" / "report.html").read_text()
    (seeds,) = json.loads(page.partition('id="histories">')[2].partition("</script>")[0]).values()
    entries = json.loads((with_curve / "results" / "cells" / CELL / "pretrain.json").read_text())
    expected = [entry.get("knn") for entry in entries["history"]]
    assert seeds[0]["knn"] == [None if x is None else pytest.approx(x, rel=1e-3) for x in expected]
    assert "curve-knn" in page
