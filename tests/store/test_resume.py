"""Progress and history: what a training says of itself while it runs."""

import json
import os
import socket
import time

import pytest
import torch
from helpers import cells

from eqco.errors import Interrupted
from eqco.runtime.signals import Stop
from eqco.store import history as lines
from eqco.store.checkpoint import Checkpoints
from eqco.training.loop import pretrain

CPU = torch.device("cpu")


def test_progress_counts_the_epochs_done_also_by_an_earlier_process(study_with, digits, tmp_path):
    study = study_with({"pretrain.epochs": 3})
    cell = next(iter(cells(study).values()))
    path, checkpoints = tmp_path / "progress.json", Checkpoints(tmp_path, {})
    seen = []

    def look(entry: dict) -> None:
        seen.append(json.loads(path.read_text()))
        if entry["epoch"] == 2 and not stop:
            stop.asked_by = 10

    stop = Stop()
    arguments = {"device": CPU, "report": look, "progress": path, "checkpoints": checkpoints}
    with pytest.raises(Interrupted):
        pretrain(study, cell, digits, stop=stop, **arguments)
    assert [progress["epoch"] for progress in seen] == [0, 1]
    assert seen[0]["images_per_s"] == 0
    earlier = json.loads(path.read_text())
    assert earlier["epoch"] == 2
    so_far = lines.read(tmp_path / lines.HISTORY)
    assert [entry["epoch"] for entry in so_far] == [1, 2]
    with (tmp_path / lines.HISTORY).open("a") as file:
        file.write('{"epoch": 3}\n{"epoch": 4, "lo')  # after the checkpoint, by a killed process
    assert lines.read(tmp_path / lines.HISTORY) == [*so_far, {"epoch": 3}]
    _, history = pretrain(study, cell, digits, **arguments)
    assert lines.read(tmp_path / lines.HISTORY) == history
    assert seen[-1]["epoch"] == 2  # written when the training resumed
    assert seen[-1]["seconds"] >= earlier["seconds"]
    progress = json.loads(path.read_text())
    seconds = sum(entry["images"] / entry["images_per_s"] for entry in history)
    assert progress.pop("seconds") == pytest.approx(seconds, abs=0.01)
    assert progress.pop("images_per_s") == pytest.approx(history[-1]["images_per_s"], abs=0.1)
    assert abs(progress.pop("time") - time.time()) < 60
    assert progress == {"epoch": 3, "epochs": 3, "pid": os.getpid(), "host": socket.gethostname()}
