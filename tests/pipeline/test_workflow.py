"""The grid as a user runs it: real Snakemake, a tiny study, in a copy of the project's files."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from helpers import ROOT, cold
from tiny_grid import CELLS, COLD, MADE, change, jobs, jobs_or_none, ran, run, snakemake, tables

pytestmark = pytest.mark.usefixtures("fork_server")

A_CELL = "results/tiny/cells/*/*/*/*"


def test_the_table_has_a_row_a_configuration_and_protocol(finished):
    table = pd.read_csv(finished / "results" / "tiny" / "table.csv", dtype=str)
    assert len(table) == 2 * 3
    assert set(table["margin"]) == {"0", "eqco"}
    assert set(table["protocol"]) == {"linear-lbfgs", "linear", "knn"}
    assert set(table["seeds"]) == {"2"}
    for row in table.itertuples():
        raw = [float(value) for value in row.values.split()]
        assert float(row.mean) == pytest.approx(sum(raw) / 2, abs=0.011)


def test_the_progress_tells_cells_and_speed(finished):
    log = (finished / "log.txt").read_text()
    assert re.search(rf"\d+ of {CELLS} cells done, .*images/s", log)
    assert "Finished jobid" not in log


def test_the_report_is_made(finished):
    page = (finished / "results" / "tiny" / "report.html").read_text()
    assert "None failed, none is missing." in page
    assert "snakemake --configfile tiny.yaml" in page


def test_every_file_of_a_study_is_explained(finished):
    """docs/files.md has its name, or the name of its folder."""
    page = (ROOT / "docs" / "files.md").read_text()
    folder = finished / "results" / "tiny"
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    named = [path.name if path.parts[0] == "cells" else path.parts[0] for path in files]
    assert {name for name in named if f"`{name}`" not in page and f"`{name}/`" not in page} == set()


def test_snakemakes_own_report_has_captions(grid):
    done = snakemake(grid, "--report", "own.html")
    assert done.returncode == 0, done.stdout
    own = (grid / "results" / "tiny" / "own.html").read_text()
    for told in ("Does contrastive learning need", "A row a configuration", "one line per margin"):
        assert told in own
    assert "all of the study in one page" in own  # the label of report.html


def test_again_does_nothing(grid):
    assert ran(snakemake(grid)) == {}


def test_a_cosmetic_edit_of_the_source_runs_nothing(grid):
    for path in (grid / "eqco").rglob("*.py"):
        path.write_text(path.read_text() + "\n# a comment\n")
    assert ran(snakemake(grid)) == {}


def test_a_table_without_its_cells_is_not_believed(grid):
    """As in a fresh clone of a repository that holds tables."""
    shutil.rmtree(grid / "results" / "tiny" / "cells")
    shutil.rmtree(grid / "results" / "tiny" / ".snakemake")
    assert jobs(snakemake(grid, "-n").stdout)["pretrain"] == CELLS


def test_file_times_alone_run_nothing(grid):
    for path in (grid / "data").rglob("*"):
        os.utime(path)
    assert ran(snakemake(grid)) == {}


def planned_in_an_image(grid: Path, *arguments: str) -> set[str]:
    """The states of files by Snakemake with `--sdm apptainer`, which asks no Apptainer for them."""
    (grid / "eqco.sif").touch()
    done = snakemake(grid, "--sdm", "apptainer", "--summary", *arguments)
    assert done.returncode == 0, done.stdout
    header, *rows = re.findall(r"^.*\t.*$", done.stdout, re.M)
    assert len(rows) > 16
    return {row.split("\t")[header.split("\t").index("plan")] for row in rows}


def test_what_was_made_outside_of_the_image_is_not_made_again_in_it(grid):
    assert planned_in_an_image(grid) == {"no update"}
    every = ("mtime", "params", "input", "code", "software-env")  # Snakemake's own default
    assert "update pending" in planned_in_an_image(grid, "--rerun-triggers", *every)


def test_an_image_that_is_not_there_is_one_line(grid):
    done = snakemake(grid, "--sdm", "apptainer", "-n")
    assert done.returncode == 1
    assert "eqco.sif: is not beside the Snakefile; docs/cluster.md tells how" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("key", "values", "new"),
    [("seeds", [0, 1, 7], 2), ("negatives", [1, 16, 64], 8), ("margins", [0, "eqco", "inf"], 2)],
)
def test_a_new_value_runs_the_new_cells_alone(grid, key, values, new):
    change(grid, {f"grid.0.{key}": values})
    expected = {"pretrain": new, "linear_eval": new, "knn_eval": new, **MADE}
    assert jobs(snakemake(grid, "-n").stdout) == expected


def test_one_changed_seed_trains_one_seed_and_leaves_the_rest_as_it_was(grid):
    old = {
        path: path.read_bytes()
        for path in grid.glob("results/tiny/cells/*/*/*/seed~0/*.safetensors")
    }
    assert len(old) == 2
    change(grid, {"grid.0.seeds": [0, 2]})
    assert ran(snakemake(grid, "--cores", "2"))["pretrain"] == 2
    assert all(path.read_bytes() == content for path, content in old.items())
    table = pd.read_csv(grid / "results" / "tiny" / "table.csv")
    assert len(table) == 2 * 3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"pretrain.lr": 0.02}, {"pretrain": 4, "linear_eval": 4, "knn_eval": 4}),
        ({"alpha": 512}, {"pretrain": 2, "linear_eval": 2, "knn_eval": 2}),
        ({"evaluate.knn.k": 7}, {"knn_eval": 4}),
        ({"evaluate.linear.lr": 3.0}, {"linear_eval": 4}),
    ],
    ids=str,
)
def test_a_changed_parameter_runs_what_depends_on_it(grid, changes, expected):
    change(grid, changes)
    assert jobs(snakemake(grid, "-n").stdout) == {**expected, **MADE}


def test_the_same_study_gives_the_same_bytes(grid):
    before = tables(grid)
    shutil.rmtree(grid / "results")
    assert ran(snakemake(grid, "--cores", "2"))["pretrain"] == CELLS
    assert tables(grid) == before


def start_anew(grid: Path) -> subprocess.Popen[str]:
    """Start the whole grid from nothing, and come back once two cells are trained."""
    shutil.rmtree(grid / "results")
    process = subprocess.Popen(
        COLD,
        cwd=grid,
        env=cold(grid),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    while len(list(grid.glob(f"{A_CELL}/pretrain.json"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    return process


def test_a_killed_snakemake_started_again_loses_nothing(grid):
    before = tables(grid)
    process = start_anew(grid)
    process.kill()
    process.wait()
    # with its times, which another training would not repeat
    trained = {path: path.read_bytes() for path in grid.glob(f"{A_CELL}/pretrain.json")}
    ran(snakemake(grid, "--cores", "2"))
    assert tables(grid) == before
    assert len(trained) >= 2
    assert all(path.read_bytes() == content for path, content in trained.items())
    assert not (grid / "results" / "tiny" / "state").exists()


@pytest.mark.parametrize(
    "forced",
    [(), ("--forcerun", "pretrain"), pytest.param(("--forceall",), marks=pytest.mark.slow)],
)
def test_what_finished_is_brought_back_unless_it_is_asked_for_anew(grid, forced):
    trained = {}
    for path in grid.glob(f"{A_CELL}/pretrain.json"):
        summary = json.loads(path.read_text())
        trained[path] = summary["seconds"]
        cell = path.parent.relative_to(grid / "results/tiny/cells")
        shutil.move(path.parent, grid / "results/tiny/state" / cell / summary["config_hash"])
    ran(snakemake(grid, "--cores", "2", *forced))
    seconds = {path: json.loads(path.read_text())["seconds"] for path in trained}
    assert (seconds == trained) == (not forced)


def test_cells_take_turns_on_one_gpu(grid, monkeypatch):
    """As many train at once as CUDA_VISIBLE_DEVICES names GPUs, whatever the cores."""
    shutil.rmtree(grid / "results")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("EQCO_DEVICE", "cpu")  # which is not there
    ran(snakemake(grid, "--cores", "4"))
    spans: dict[str, list[float]] = {}  # of a job, by its log; its outputs have a record each
    for path in (grid / RECORDS / "metadata").rglob("*"):
        record = json.loads(path.read_text()) if path.is_file() else {}
        if record.get("rule") in ("pretrain", "linear_eval", "knn_eval"):
            spans.setdefault(record["log"][0], []).extend((record["starttime"], record["endtime"]))
    assert len(spans) == 3 * CELLS
    in_turn = pairwise(sorted((min(times), max(times)) for times in spans.values()))
    assert all(start >= end - 0.05 for (_, end), (start, _) in in_turn)


def test_two_at_once_are_one(grid):
    before = tables(grid)
    first = start_anew(grid)
    second = snakemake(grid, "--cores", "2")
    assert second.returncode == 1
    assert f"results/tiny/lock: is held by process {first.pid} on" in second.stdout
    assert first.wait() == 0
    assert tables(grid) == before


RECORDS = "results/tiny/.snakemake"


@pytest.mark.parametrize(
    ("key", "value", "file"),
    [("temperature", 0.5, "pretrain.json"), ("evaluate.linear.lr", 3.0, "linear.json")],
)
def test_results_without_their_records_are_not_kept_under_other_parameters(grid, key, value, file):
    """As in a clone that has pulled results without Snakemake's records."""
    shutil.rmtree(grid / RECORDS)
    change(grid, {key: value})
    done = snakemake(grid, "-n")
    assert done.returncode == 1
    assert re.search(
        rf"{file}: is a result of other parameters, and .* `dvc checkout`", done.stdout
    )


def test_records_of_another_commit_do_not_vouch_for_these_results(grid, tmp_path):
    mine = shutil.copytree(grid, tmp_path / "mine", symlinks=True)
    change(grid, {"temperature": 0.5})
    ran(snakemake(grid, "--cores", "2"))
    shutil.rmtree(mine / RECORDS)
    shutil.copytree(grid / RECORDS, mine / RECORDS)
    change(mine, {"temperature": 0.5})
    done = snakemake(mine, "-n")
    assert done.returncode == 1
    assert "pretrain.json: is a result of other parameters" in done.stdout
    change(mine, {"temperature": 0.2})  # its own: what the records say is noticed
    assert jobs(snakemake(mine, "-n").stdout)["pretrain"] == CELLS


def test_results_without_records_but_of_these_parameters_are_kept(grid):
    shutil.rmtree(grid / RECORDS)
    assert "pretrain" not in jobs_or_none(snakemake(grid, "-n").stdout)


def test_a_cell_that_diverges_is_a_hole_in_the_table(grid):
    """The other cells go on, no mean is taken over what is left, and nothing is tried again."""
    change(grid, {"grid.0.lrs": [0.05, 1e30], "grid.0.negatives": [16], "grid.0.margins": [0]})
    ran(snakemake(grid, "--cores", "2"))
    table = pd.read_csv(grid / "results/tiny/table.csv", dtype=str, keep_default_na=False)
    good, bad = table[table["lr"] == "0.05"], table[table["lr"] == "1e+30"]
    assert len(good) == len(bad) == 3
    assert all(good["mean"])
    assert set(bad["mean"]) == set(bad["std"]) == {""}
    assert set(bad["values"]) == {"failed failed"}
    logs = [path.read_text() for path in grid.glob("results/tiny/cells/**/pretrain.log")]
    told = [log for log in logs if "failed: the loss is not finite from step" in log]
    assert len(told) == 2
    assert ran(snakemake(grid)) == {}


def test_a_mistake_in_the_study_stops_before_any_job(grid):
    change(grid, {"grid.0.negatives": [1, 300]})
    done = snakemake(grid)
    assert done.returncode == 1
    assert "tiny.yaml: grid.0.negatives.1: 300: simo allows 1 to 255, the" in done.stdout
    assert "Job stats" not in done.stdout


def test_values_on_the_command_line_are_refused(grid):
    """The jobs read the file: what Snakemake would plan differently must not run."""
    before = tables(grid)
    done = snakemake(grid, "--cores", "2", "--config", "temperature=0.5")
    assert done.returncode == 1
    assert "tiny.yaml: the jobs read this file alone" in done.stdout
    assert tables(grid) == before
    assert ran(snakemake(grid)) == {}


def test_the_default_study_is_the_demo(grid):
    (grid / "params").mkdir()
    shutil.copy(ROOT / "params" / "demo.yaml", grid / "params")
    done = run(grid, ["snakemake", "-n"], {**os.environ, "PYTHONPATH": str(grid)})
    assert jobs(done.stdout)["pretrain"] == 50


def test_parsing_the_workflow_imports_no_torch(grid):
    code = (
        "import sys, snakemake.cli\n"
        "try: snakemake.cli.main(['-n', '--configfile', 'tiny.yaml'])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(grid)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=grid, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0
