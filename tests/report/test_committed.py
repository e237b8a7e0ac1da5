"""The committed results: whole, of clean revisions, and what the code makes of the kept cells."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import weight
import yaml
from helpers import ROOT

from eqco.commands import studies
from eqco.store import archive as kept
from eqco.store.cells import SUMMARY
from eqco.store.selection import needed
from eqco.study.grid import Grid
from eqco.study.load import load_study


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)


COMMITTED = sorted(
    {path.split("/")[1] for path in git("ls-files", "results/*/*").stdout.splitlines()}
)
MADE = (
    *("table.csv", "table.md", "summary.md", "metrics.json", "provenance.json"),
    *("negatives.svg", "negatives.png"),
)
# The machine's clone had the study's file as a change to a revision before it.
BESIDE_A_REVISION = {"weighting-or-rate-gpu"}
COMPARED = ("comparisons.csv", "comparisons.md", "forest.svg", "forest.png")
CLAIMED = ("claims.csv", "claims.md", "claims.svg", "claims.png")
SELECTED = ("selection.csv", "selection.svg", "selection.png")

each_study = pytest.mark.parametrize("study", COMMITTED)
# of each kind: with claims and a selection, with comparisons, and with neither
KINDS = {"weighting-or-rate", "demo-repeats", "moco-cifar10-demo-cpu"}
each_drawing = pytest.mark.parametrize(
    "study",
    [pytest.param(one, marks=[] if one in KINDS else pytest.mark.slow) for one in COMMITTED],
)


def test_the_figure_of_w_is_what_its_command_makes(tmp_path):
    weight.draw(tmp_path / "weight")
    for name in ("weight.svg", "weight.png"):
        assert (tmp_path / name).read_bytes() == (ROOT / "docs" / "figures" / name).read_bytes()


def test_there_are_some_and_each_has_a_stage():
    assert "fashion-mnist" in COMMITTED
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    assert pipeline["stages"]["study"]["foreach"] == COMMITTED


@each_study
def test_every_cell_is_kept_and_comes_from_a_clean_revision_of_this_history(study):
    found = kept.read_kept(ROOT / "results" / study)
    grid = Grid(load_study(ROOT / "params" / f"{study}.yaml"))
    assert list(found) == list(needed(grid, ROOT / "results" / study).cells)
    revisions = {files[SUMMARY]["provenance"]["revision"] for files in found.values()}
    changed = [revision for revision in revisions if revision.endswith("-dirty")]
    assert changed == (list(revisions) if study in BESIDE_A_REVISION else [])
    whole = git("rev-parse", "--is-shallow-repository").stdout.strip() == "false"
    for revision in (one.removesuffix("-dirty") for one in revisions if whole):
        assert git("merge-base", "--is-ancestor", revision, "HEAD").returncode == 0, revision
    for revision in changed * whole:
        file = f"params/{study}.yaml"
        added = git("log", "--diff-filter=A", "--format=%H", "--", file).stdout.strip()
        between = git("diff", "--name-only", revision.removesuffix("-dirty"), added)
        folders = {path.partition("/")[0] for path in between.stdout.split()}
        assert folders == {"params", "tests"}, "the code is that revision's"


@each_drawing
def test_tables_and_figures_are_what_the_code_makes_of_the_kept_cells(study, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    committed = ROOT / "results" / study
    shutil.copy(committed / kept.KEPT, tmp_path)
    studies.table(Path("params", f"{study}.yaml"), tmp_path)
    study_file = load_study(ROOT / "params" / f"{study}.yaml")
    names = [
        *MADE,
        *COMPARED * bool(study_file.comparisons),
        *CLAIMED * bool(study_file.claims),
        *SELECTED * bool(study_file.select),
    ]
    if study_file.select:
        studies.select(Path("params", f"{study}.yaml"), tmp_path)
    for name in names:
        assert (tmp_path / name).read_bytes() == (committed / name).read_bytes(), name
    tracked = git("ls-files", f"results/{study}").stdout.split()
    assert sorted(Path(path).name for path in tracked) == sorted([*names, kept.KEPT])


@each_drawing
def test_the_report_can_be_made_of_the_kept_cells(study, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    shutil.copy(ROOT / "results" / study / kept.KEPT, tmp_path)
    studies.report(Path("params", f"{study}.yaml"), tmp_path)
    page = (tmp_path / "report.html").read_text()
    count = json.loads((ROOT / "results" / study / "provenance.json").read_text())["cells"]
    assert f"{count} cells" in page
    if study == "weighting-or-rate":
        assert "<summary>32 values</summary>" in page
