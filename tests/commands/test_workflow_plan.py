"""The plan that the Snakefile asks for, without a Snakemake: study, cells, paths, archive."""

import math
import os
import shutil
from pathlib import Path

import pytest
import yaml
from helpers import TINY, make_up_cells, with_values

from eqco.commands.workflow import load
from eqco.errors import InputError
from eqco.study.grid import Grid
from eqco.study.load import load_study

CELL = "method~simo/negatives~16/margin~eqco/seed~0"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project with the tiny study, and the working directory."""
    (tmp_path / "params").mkdir()
    shutil.copy(TINY, tmp_path / "params")
    monkeypatch.chdir(tmp_path)
    return tmp_path


FILE = Path("params", "tiny.yaml")


def plan(root: Path, main: bool = True, **config):
    return load(FILE, {**yaml.safe_load(FILE.read_text()), **config}, root, main=main)


def test_the_cells_of_the_study_and_their_hashes(root):
    made = plan(root)
    grid = Grid(load_study(FILE))
    assert made.cells_to_run == list(grid.cells)
    assert made.hash(CELL) == grid.cells[CELL].hash
    assert made.archived == {}
    axes = {"method": "simo", "negatives": "16", "margin": "eqco", "seed": "0"}
    assert made.cell_pattern.format(**axes) == CELL


def test_paths_are_relative_to_the_studys_folder(root):
    made = plan(root)
    assert made.folder == root / "results" / "tiny"
    assert (made.study_file, made.data) == ("../../params/tiny.yaml", "../../data/digits")
    assert made.published == "../../published/accuracies.csv"
    assert made.from_folder(root) == "../.."


def test_paths_from_a_link_to_the_project_are_the_same(root, tmp_path_factory, monkeypatch):
    link = tmp_path_factory.mktemp("link") / "project"
    link.symlink_to(root)
    monkeypatch.chdir(link)
    assert plan(Path(os.getcwd())).study_file == "../../params/tiny.yaml"


def test_a_quick_study_lies_in_its_own_folder(root):
    made = plan(root, quick=True)
    assert made.study.study == "tiny-quick"
    assert made.study_file == "study.yaml"
    assert load_study(made.folder / "study.yaml") == made.study


def test_a_job_writes_no_quick_study(root):
    assert plan(root, main=False, quick=True).study_file == "study.yaml"
    assert not (root / "results").exists()


def test_another_configuration_than_the_file_is_refused(root):
    with pytest.raises(InputError, match=r"^params/tiny\.yaml: the jobs read this file alone"):
        plan(root, temperature=0.5)


def test_a_mistake_names_file_key_and_value(root):
    values = with_values(yaml.safe_load(FILE.read_text()), {"temperature": 0})
    FILE.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=r"^params/tiny\.yaml: temperature: 0: input should be"):
        plan(root)


def test_archived_cells_need_not_run(root):
    study = load_study(FILE)
    make_up_cells(study, root / "results" / "tiny")
    made = plan(root)
    assert made.cells_to_run == []
    assert list(made.archived) == list(Grid(study).cells)
    (root / "results" / "tiny" / "cells" / CELL).mkdir(parents=True)
    assert plan(root).cells_to_run == [CELL]


def test_an_infinite_margin_is_the_same_in_file_and_configuration(root):
    values = with_values(yaml.safe_load(FILE.read_text()), {"grid.0.margins": [0, math.inf]})
    FILE.write_text(yaml.safe_dump(values))
    assert len(plan(root).cells_to_run) == 8
