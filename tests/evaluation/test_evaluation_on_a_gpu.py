"""The protocols on a GPU beside the CPU's, of the same encoder."""

import json

import pytest
import torch
from helpers import cells

from eqco.commands.evaluate import evaluate_knn, evaluate_linear
from eqco.commands.pretrain import pretrain_cell
from eqco.store.cells import ENCODER, SUMMARY
from eqco.study.grid import Grid

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_encoder_is_evaluated_as_on_the_cpu(study_with, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    study = study_with(
        {
            "pretrain.epochs": 4,
            "evaluate.linear_lbfgs.iterations": 100,
            "evaluate.linear.epochs": 20,
        }
    )
    cell = next(iter(Grid(study).cells.values()))
    assert cells(study)[cell.path] == cell.cell
    pretrain_cell(
        study, cell, digits, tmp_path, tmp_path / "state", device=CUDA, checkpoint_seconds=300
    )
    summary = json.loads((tmp_path / SUMMARY).read_text())
    assert summary["provenance"]["hardware"] == torch.cuda.get_device_name()
    assert summary["peak_memory_mb"]["device"] > 0
    found = {}
    for device in (CPU, CUDA):
        places = (study, tmp_path / ENCODER, digits)
        out = tmp_path / f"{device}.json"
        evaluate_linear(*places, out, tmp_path / "state", device=device)
        accuracies = json.loads(out.read_text())["accuracy"]
        evaluate_knn(*places, out, device=device)
        found[device] = accuracies | json.loads(out.read_text())["accuracy"]
    assert found[CPU].keys() == found[CUDA].keys()
    for protocol, accuracy in found[CPU].items():
        assert found[CUDA][protocol] == pytest.approx(accuracy, abs=1.0), protocol  # 5 of 500
