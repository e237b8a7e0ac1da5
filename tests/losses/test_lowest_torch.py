"""The losses beside the lowest torch that docs/library.md names give the numbers of this one."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT, cold

(LOWEST,) = re.findall(r"a torch from ([\d.]+) on", (ROOT / "docs" / "library.md").read_text())

# Losses and gradients of both forms of each module, on inputs that no version draws otherwise.
PROGRAM = """
import json, math, torch
from eqco.losses import DCLLoss, DualTemperatureLoss, EqCoLoss

def rows(count, phase):
    numbers = [[math.sin(phase + 5 * i + j * j) for j in range(16)] for i in range(count)]
    return torch.tensor(numbers, dtype=torch.float64, requires_grad=True)

found = {}
for module in (EqCoLoss(alpha=65536, temperature=0.2), DCLLoss(0.2), DualTemperatureLoss()):
    for form, inputs in {"views": (rows(8, 0), rows(8, 1)),
                         "queue": (rows(8, 0), rows(8, 1), rows(5000, 2))}.items():
        loss = module(*inputs)
        loss.backward()
        gradients = [x.grad.flatten().tolist() for x in inputs if x.grad is not None]
        found[f"{type(module).__name__} {form}"] = [loss.item(), *sum(gradients, [])]
print(json.dumps({"version": torch.__version__, "found": found}))
"""


@pytest.fixture
def lowest(tmp_path) -> Iterator[Path]:
    """A folder with that torch, 5 GB, which is removed again."""
    folder = tmp_path / "lowest"
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--target", str(folder))
    done = subprocess.run([*pip, f"torch=={LOWEST}"], capture_output=True, text=True, check=False)
    try:
        if done.returncode:
            pytest.skip(f"needs torch {LOWEST} from an index of packages: {done.stderr[-200:]}")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def result(python: list[str], environment: dict[str, str]) -> dict:
    command = [*python, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_losses_and_gradients_are_the_same_beside_the_lowest_torch(lowest):
    here = result([sys.executable], cold(ROOT))
    # -S: nothing of this environment stands in for what is not in the folder
    there = result([sys.executable, "-S"], {**cold(ROOT), "PYTHONPATH": f"{lowest}:{ROOT}"})
    assert there["version"].split("+")[0] == LOWEST != here["version"].split("+")[0]
    assert set(there["found"]) == set(here["found"])
    for name, numbers in here["found"].items():
        assert there["found"][name] == pytest.approx(numbers, rel=1e-12, abs=1e-15), name
