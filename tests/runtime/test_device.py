"""Which device a command takes: never the CPU, silently, where a GPU was asked for."""

import os
import re
import subprocess
import sys

import pytest
import torch
from helpers import TINY, cells

from eqco.commands import pretrain as command
from eqco.errors import InputError
from eqco.runtime import device
from eqco.runtime.device import claim
from eqco.study.grid import Grid
from eqco.study.load import load_study

pytestmark = pytest.mark.usefixtures("fork_server")
NO_GPU = not torch.cuda.is_available()
without_a_gpu = pytest.mark.skipif(not NO_GPU, reason="needs a torch that sees no GPU")


@without_a_gpu
def test_a_gpu_that_torch_does_not_see_is_an_error(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(InputError, match="sees no GPU, but one is here") as error:
        claim("auto", None, 1)
    line = str(error.value)
    assert f"torch {torch.__version__}" in line
    assert re.search(r"is built for (CUDA \d+\.\d+|CPUs), ", line)
    assert re.search(r"no driver is found|the driver is for CUDA \d+\.\d+", line)
    assert "\n" not in line


@pytest.mark.parametrize(("name", "ranks"), [("cpu", 1), ("auto", 0)])
def test_the_cpu_is_a_choice(monkeypatch, name, ranks):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert claim(name, None, ranks).type == "cpu"


@without_a_gpu
def test_without_any_gpu_auto_is_the_cpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert claim("auto", None, 1).type == "cpu"


@without_a_gpu
def test_the_command_trains_nothing_and_the_environment_may_say_cpu(digits, tmp_path):
    cell = next(iter(cells(load_study(TINY))))
    command = [sys.executable, "-m", "eqco", "pretrain", str(TINY), "--cell", cell]
    command += ["--data", str(digits), "--out", str(tmp_path)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("eqco: --device: auto: torch ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "encoder.safetensors").exists()
    environment["EQCO_DEVICE"] = "cpu"
    subprocess.run(command, env=environment, capture_output=True, check=True)
    assert (tmp_path / "encoder.safetensors").exists()


def test_bfloat16_units_are_those_that_the_processor_names(monkeypatch):
    for able, expected in (({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({}, False)):
        named = {"avx2": True, "avx512_bf16": False, **able}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda named=named: named)
        assert device.has_bfloat16_units(torch.device("cpu")) == expected
    assert device.has_bfloat16_units(torch.device("cuda"))


def test_a_cell_says_that_its_processor_emulates_bfloat16(
    study_with, digits, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(command, "has_bfloat16_units", lambda device: False)
    for precision, told in (("bfloat16", True), ("float32", False)):
        study = study_with({"pretrain.precision": precision})
        command.pretrain_cell(
            study,
            next(iter(Grid(study).cells.values())),
            digits,
            tmp_path / precision,
            tmp_path / precision / "state",
            device=torch.device("cpu"),
            checkpoint_seconds=300,
        )
        line = "pretrain.precision: bfloat16: this processor emulates it, many times slower than"
        assert capsys.readouterr().out.startswith(line) == told


@pytest.mark.gpu
@pytest.mark.skipif(NO_GPU, reason="needs a CUDA device")
def test_auto_is_a_gpu_where_there_is_one():
    assert claim("auto", None, 1) == claim("cuda", None, 1) == torch.device("cuda", 0)
    assert re.fullmatch(r"\d+\.\d+", device.driver() or "")
