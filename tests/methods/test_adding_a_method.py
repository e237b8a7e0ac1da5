"""The steps of docs/adding-a-method.md, taken literally in a copy of the package."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial

import pytest
from helpers import ROOT, TINY

# forks of one process that has imported the copy: a training alone, and one of two ranks
TRAININGS = """
import subprocess, sys
from eqco import forkserver

forkserver.start()
for gpus, out in (("1", "one"), ("2", "two")):
    command = [sys.executable, "-m", "eqco", "pretrain", "--out", out]
    command += ["--gpus", gpus, "--threads", gpus]
    subprocess.run([*command, *sys.argv[1:]], check=True)
"""


def test_one_file_and_one_line(tmp_path, digits):
    page = (ROOT / "docs" / "adding-a-method.md").read_text()
    file, line = re.findall(r"```python\n(.*?)```", page, re.S)
    (name,) = re.findall(r"\*\*The file\*\*, `(.*?)`", page)
    shutil.copytree(ROOT / "eqco", tmp_path / "eqco", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / name).write_text(file)
    registry = tmp_path / "eqco" / "study" / "methods.py"
    registry.write_text(registry.read_text().replace("METHODS = {\n", "METHODS = {\n    " + line))
    study = TINY.read_text().replace("[simo]", "[nomomentum]").replace("epochs: 1\n", "epochs: 5\n")
    # a higher rate makes more of the rounding, in which one process and two ranks differ
    (tmp_path / "study.yaml").write_text(study.replace("lr: 0.01\n", "lr: 0.001\n"))
    cell = "method~nomomentum/negatives~16/margin~eqco/seed~0"
    run = partial(
        subprocess.run,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    done = run([sys.executable, "-c", TRAININGS, "study.yaml", "--data", digits, "--cell", cell])
    assert done.returncode == 0, done
    one, two = (
        [epoch["loss"] for epoch in json.loads((tmp_path / file).read_text())["history"]]
        for file in ("one/pretrain.json", "two/pretrain.json")
    )
    assert one[-1] < one[0]
    assert two[0] == pytest.approx(one[0], rel=1e-3)
    assert two == pytest.approx(one, rel=0.02)  # rounding makes such differences
    schema = run([sys.executable, "-m", "eqco", "schema"])  # what `make schema` writes
    assert '"nomomentum"' in schema.stdout
