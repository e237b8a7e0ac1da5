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


def test_one_file_and_one_line(tmp_path, digits):
    page = (ROOT / "docs" / "adding-a-method.md").read_text()
    file, line = re.findall(r"```python\n(.*?)```", page, re.S)
    (name,) = re.findall(r"\*\*The file\*\*, `(.*?)`", page)
    shutil.copytree(ROOT / "eqco", tmp_path / "eqco", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / name).write_text(file)
    registry = tmp_path / "eqco" / "methods" / "__init__.py"
    registry.write_text(registry.read_text().replace("METHODS = {\n", "METHODS = {\n    " + line))
    study = TINY.read_text().replace("[simo]", "[nomomentum]").replace("epochs: 1\n", "epochs: 5\n")
    (tmp_path / "study.yaml").write_text(study.replace("lr: 0.01", "lr: 0.05"))
    command = [sys.executable, "-m", "eqco", "pretrain", "study.yaml", "--data", str(digits)]
    cell = "method~nomomentum/negatives~16/margin~eqco/seed~0"
    run = partial(
        subprocess.run,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    done = run([*command, "--cell", cell, "--out", "out"])
    assert done.returncode == 0, done
    history = json.loads((tmp_path / "out" / "pretrain.json").read_text())["history"]
    assert history[-1]["loss"] < history[0]["loss"]
    done = run([*command, "--cell", cell, "--out", "ranks", "--gpus", "2"])
    assert done.returncode == 0, done
    of_two = json.loads((tmp_path / "ranks" / "pretrain.json").read_text())["history"]
    assert of_two[-1]["loss"] == pytest.approx(history[-1]["loss"], rel=0.02)
    schema = run([sys.executable, "-m", "eqco", "schema"])  # what `make schema` writes
    assert '"nomomentum"' in schema.stdout
