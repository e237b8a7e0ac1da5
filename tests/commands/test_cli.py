"""The commands as a user runs them: help, a cell from data to table, one line for a mistake."""

import json
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers import TINY, eqco, fails, with_values
from typer.testing import CliRunner

from eqco import __version__, forkserver
from eqco.commands import cli
from eqco.store.cells import read_encoder, save_encoder

pytestmark = pytest.mark.usefixtures("fork_server")
COMMANDS = [
    *("prepare", "pretrain", "linear-eval", "knn-eval"),
    *("finetune-eval", "transfer-eval"),
    *("evaluate", "export"),
    *("table", "schema", "cells", "keep"),
]
CELL = "method~simo/negatives~16/margin~eqco/seed~0"


def test_help_names_every_command():
    text = eqco("--help").stdout
    for command in COMMANDS:
        assert command in text


def test_the_version():
    assert eqco("--version").stdout == f"eqco {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command):
    done = CliRunner().invoke(cli.app, [command, "--help"])
    assert done.exit_code == 0
    assert "Usage" in done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder in which every cell of a one-cell study went through every command."""
    folder = tmp_path_factory.mktemp("cli")
    values = with_values(
        yaml.safe_load(TINY.read_text()),
        {
            "grid.0.negatives": [16],
            "grid.0.margins": ["eqco"],
            "grid.0.seeds": [0],
            "data.validation": 197,
            "evaluate.key_encoder": True,
            "evaluate.knn.ks": [3],
        },
    )
    (folder / "one.yaml").write_text(yaml.safe_dump(values))
    cell = folder / "results/tiny/cells" / CELL
    encoder = ("--encoder", cell / "encoder.safetensors", "--data", "data/digits")
    for arguments in (
        ("prepare", "one.yaml", "--out", "data/digits"),
        ("pretrain", "one.yaml", "--cell", CELL, "--data", "data/digits", "--out", cell),
        ("linear-eval", "one.yaml", *encoder, "--out", cell / "linear.json"),
        ("knn-eval", "one.yaml", *encoder, "--out", cell / "knn.json"),
    ):
        done = eqco(*arguments, cwd=folder)
        assert done.returncode == 0, done
    return folder


@pytest.fixture(scope="module")
def table(trained) -> str:
    """The output of the table of its one cell."""
    done = eqco("table", "one.yaml", cwd=trained)
    assert done.returncode == 0, done
    return done.stdout


def test_the_table_of_one_cell(trained, table):
    names = ("linear-lbfgs", "linear", "knn", "knn-k~3")
    both = [*names, *(f"{name}@key" for name in names)]
    for split, suffix in (("test", ""), ("validation", "@validation")):
        heads = [line for line in table.splitlines() if f"{split} accuracy [%]" in line]
        assert [head.partition(":")[0] for head in heads] == [f"{name}{suffix}" for name in both]
    pretrained = json.loads((trained / "results/tiny/cells" / CELL / "pretrain.json").read_text())
    assert pretrained["images"] == (1297 - 197) // 256 * 256
    # ema is 0.999 of an epoch of five steps: the key encoder has hardly left its start
    values = pd.read_csv(trained / "results/tiny/table.csv").set_index("protocol")["mean"]
    assert values["linear-lbfgs@key"] != values["linear-lbfgs"]
    files = {path.name for path in (trained / "results/tiny").iterdir()}
    assert files >= {"table.csv", "table.md", "negatives.svg", "negatives.png", "provenance.json"}
    assert table == (trained / "results/tiny/summary.md").read_text()


def test_a_file_without_the_key_encoder_is_named(trained, tmp_path):
    """Earlier versions did not keep it."""
    saved = read_encoder(trained / "results/tiny/cells" / CELL / "encoder.safetensors")
    save_encoder(tmp_path / "old.safetensors", replace(saved, key={}))
    message = fails(
        *("knn-eval", "one.yaml", "--encoder", tmp_path / "old.safetensors"),
        *("--data", "data/digits", "--out", tmp_path / "knn.json"),
        cwd=trained,
    )
    assert "old.safetensors: evaluate.key_encoder: the file holds no key encoder" in message
    assert not (tmp_path / "knn.json").exists()


def test_the_cells_that_are_not_finished(trained):
    assert eqco("cells", "one.yaml", cwd=trained).stdout == ""
    assert eqco("cells", "one.yaml", "--results", "elsewhere", cwd=trained).stdout == CELL + "\n"


@pytest.mark.usefixtures("table")
def test_provenance_names_revision_versions_hardware_data_and_time(trained):
    provenance = json.loads((trained / "results/tiny/provenance.json").read_text())
    (made_by,) = provenance["made_by"]
    assert made_by["cells"] == provenance["cells"] == 1
    assert made_by["versions"].keys() >= {"python", "torch", "snakemake", "eqco"}
    assert made_by["hardware"]
    assert "revision" in made_by
    assert len(provenance["dataset"]["sha256"][0]) == 129
    assert provenance["pretrain"]["wall_time_s"] > 0
    assert provenance["parameters"]["pretrain"]["batch"] == 256


def test_an_unknown_cell(trained):
    message = fails(
        *("pretrain", "one.yaml", "--cell", "x", "--data", "data/digits", "--out", "out"),
        cwd=trained,
    )
    assert "one.yaml: no cell 'x' in its grid" in message
    assert not (trained / "out").exists()


def test_a_study_that_changed_under_a_running_grid(trained):
    message = fails(
        *("pretrain", "one.yaml", "--cell", CELL, "--expect", "0" * 16),
        *("--data", "data/digits", "--out", "out"),
        cwd=trained,
    )
    assert "one.yaml: has changed since the grid was planned" in message
    assert not (trained / "out").exists()


def test_missing_data(trained):
    message = fails(
        *("pretrain", "one.yaml", "--cell", CELL, "--data", "nowhere", "--out", "out"), cwd=trained
    )
    assert "nowhere/MANIFEST.json: cannot be read" in message


def test_a_missing_cell_in_the_table(trained, tmp_path):
    message = fails("table", "one.yaml", "--results", tmp_path, cwd=trained)
    assert f"{CELL}/pretrain.json: cannot be read" in message
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_device(trained):
    message = fails(
        *("pretrain", "one.yaml", "--cell", CELL, "--data", "data/digits", "--out", "out"),
        *("--device", "abacus"),
        cwd=trained,
    )
    assert "--device: abacus: " in message


def test_a_file_where_a_folder_should_be(trained, tmp_path):
    (tmp_path / "file").write_text("")
    message = fails("prepare", "one.yaml", "--out", tmp_path / "file", cwd=trained)
    assert "file/MANIFEST.json: Not a directory" in message


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_no_permission_to_write(trained, tmp_path, monkeypatch):
    """As an ordinary user meets it; root is stripped of the power to write anywhere."""
    monkeypatch.delenv(forkserver.VARIABLE)  # the server has the permission
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    drop = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
    command = [sys.executable, "-m", "eqco", "prepare", "one.yaml", "--out", str(locked / "x")]
    if os.getuid() == 0:
        command = [*drop, *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=trained)
    assert done.returncode == 1
    assert done.stderr == f"eqco: {locked / 'x'}: Permission denied\n"


def test_a_full_disk(trained, tmp_path, monkeypatch):
    """A limit on a file's size stands in: the write fails half-way, as on a full disk."""
    monkeypatch.delenv(forkserver.VARIABLE)  # the server has no such limit
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    message = fails("prepare", "one.yaml", "--out", tmp_path / "x", cwd=trained, preexec_fn=limit)
    assert "File too large" in message
    assert list((tmp_path / "x").iterdir()) == []
