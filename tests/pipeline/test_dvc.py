"""DVC as a user runs it: real git, DVC and Snakemake, a tiny study, a directory as the remote."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, TINY, cold, copy_project, with_values

pytestmark = pytest.mark.usefixtures("fork_server")

CELLS = "results/small/cells"
PIPELINE = "workflow/dvc.yaml"
SMALL = f"{PIPELINE}:grid@small"
KEPT = "study@kept"
BIN = Path(sys.executable).parent
AUTHOR = {
    f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in ``folder``, with the package that lies there."""
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **AUTHOR, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def ok(folder: Path, *command: str) -> str:
    done = run(folder, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def dvc(folder: Path, *arguments: str) -> str:
    return ok(folder, "dvc", *arguments)


def commit(folder: Path, message: str) -> None:
    ok(folder, "git", "add", "-A")
    ok(folder, "git", "commit", "-qm", message)


def change(folder: Path, changes: dict) -> None:
    path = folder / "params" / "small.yaml"
    path.write_text(yaml.safe_dump(with_values(yaml.safe_load(path.read_text()), changes)))


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    """A repository with three studies, whose results are committed and pushed.

    Two are trained under DVC, and of one the cells are kept in git.
    """
    folder = tmp_path_factory.mktemp("dvc") / "origin"
    copy_project(folder, ".dvc/plots")
    for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "params").mkdir()
    shutil.copytree(ROOT / "published", folder / "published")
    tiny = yaml.safe_load(TINY.read_text())
    four = {"grid.0.seeds": [0]}
    one = {**four, "grid.0.negatives": [1], "grid.0.margins": [0]}
    for name, changes in (("small", four), ("other", one), ("kept", four)):
        study = with_values(tiny, {**changes, "study": name})
        (folder / "params" / f"{name}.yaml").write_text(yaml.safe_dump(study))
    trained = yaml.safe_load((ROOT / PIPELINE).read_text())
    trained["stages"]["data"]["foreach"] = {"digits": {"study": "small"}}
    trained["stages"]["grid"]["foreach"] = {
        "small": {"data": "digits"},
        "other": {"data": "digits"},
    }
    (folder / PIPELINE).write_text(yaml.safe_dump(trained))
    kept = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    kept["stages"]["study"]["foreach"] = ["kept"]
    (folder / "dvc.yaml").write_text(yaml.safe_dump(kept))
    ok(folder, "git", "init", "-q", "-b", "main")
    dvc(folder, "remote", "add", "-d", "store", str(folder.parent / "store"))
    dvc(folder, "remote", "modify", "store", "verify", "true")
    dvc(folder, "repro", PIPELINE)
    ok(folder, "python", "-m", "snakemake", "--configfile", "params/kept.yaml")
    ok(folder, "python", "-m", "eqco", "keep", "params/kept.yaml")
    shutil.rmtree(folder / "results/kept/cells")  # as in a clone
    shutil.rmtree(folder / "results/kept/.snakemake")
    commit(folder, "results")
    dvc(folder, "push")
    return folder


@pytest.fixture
def clone(origin, tmp_path) -> Path:
    ok(tmp_path, "git", "clone", "-q", str(origin), "clone")
    return tmp_path / "clone"


@pytest.fixture(scope="module")
def pulled_once(origin, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pulled") / "clone"
    ok(folder.parent, "git", "clone", "-q", str(origin), "clone")
    dvc(folder, "pull")
    return folder


@pytest.fixture
def pulled(pulled_once, tmp_path) -> Path:
    """A clone with its data, to change."""
    return shutil.copytree(pulled_once, tmp_path / "clone", symlinks=True)


def test_tables_are_in_git_and_what_is_large_is_in_dvc(origin):
    in_git = set(ok(origin, "git", "ls-files", "results", "data").split())
    names = {"metrics.json", "negatives.png", "negatives.svg", "provenance.json", "table.csv"}
    names |= {"summary.md", "table.md"}
    assert in_git == {f"results/kept/{name}" for name in {*names, "cells.jsonl"}} | {
        f"results/{study}/.gitignore" for study in ("small", "other")
    }
    in_dvc = ok(origin, "dvc", "list", "-R", "--dvc-only", ".").split()
    assert "data/digits/train.safetensors" in in_dvc
    for study in ("small", "other"):
        assert {f"results/{study}/{name}" for name in {*names, "report.html"}} <= set(in_dvc)
    assert len([path for path in in_dvc if path.endswith("encoder.safetensors")]) == 4 + 1
    assert not [path for path in in_dvc if "/state/" in path or path.endswith(".log")]


def test_a_clone_with_its_data_has_nothing_to_do(pulled):
    assert not (pulled / "results/kept/report.html").exists()  # made, never pulled
    assert "Data and pipelines are up to date" in dvc(pulled, "repro", PIPELINE)
    assert "plots/index.html" in dvc(pulled, "plots", "show", "--out", "../plots")
    plan = ok(pulled, "python", "-m", "snakemake", "--configfile", "params/small.yaml", "-n")
    assert "Nothing to be done" in plan
    assert ok(pulled, "git", "status", "--short") == ""


def test_every_stage_that_was_pulled_alone_has_nothing_to_do(clone):
    locked = (clone / "workflow/dvc.lock").read_text()
    for stage in ("data@digits", "grid@small", "grid@other"):
        dvc(clone, "pull", f"{PIPELINE}:{stage}")
        assert "up to date" in dvc(clone, "repro", f"{PIPELINE}:{stage}")
    assert (clone / "workflow/dvc.lock").read_text() == locked
    assert ok(clone, "git", "status", "--short") == ""


def test_a_clone_makes_the_tables_of_kept_cells_and_trains_nothing(clone):
    """Without a remote, data or a lock: every tracked file stays, byte for byte."""
    dvc(clone, "repro")
    assert ok(clone, "git", "status", "--short").split() == ["??", "dvc.lock"]
    assert "kept" in (clone / "results/kept/report.html").read_text()
    assert not (clone / "results/kept/cells").exists()
    assert not (clone / "data").exists()
    assert "up to date" in dvc(clone, "repro")


@pytest.mark.slow  # test_archived has it without DVC
def test_a_changed_parameter_trains_what_it_touches_of_a_kept_study(clone):
    path = clone / "params/kept.yaml"
    path.write_text(path.read_text().replace("alpha: 256", "alpha: 8"))
    dvc(clone, "repro")
    trained = [cell.parent for cell in clone.glob("results/kept/cells/**/encoder.safetensors")]
    assert len(trained) == 2
    assert all("margin~eqco" in str(cell) for cell in trained)


def test_a_study_is_pulled_without_the_others(clone):
    dvc(clone, "pull", f"{PIPELINE}:grid@other")
    assert list(clone.glob("results/other/cells/**/encoder.safetensors"))
    assert not (clone / CELLS).exists()
    assert not list(clone.glob("data/*/train.safetensors"))


def seconds(folder: Path) -> dict[str, float]:
    """The time that each cell's training took, which another training would not repeat."""
    return {
        str(path.relative_to(folder)): json.loads(path.read_text())["seconds"]
        for path in folder.glob(f"{CELLS}/**/pretrain.json")
    }


def test_one_parameter_runs_the_cells_that_it_touches_and_the_diffs_say_what_changed(pulled):
    before = seconds(pulled)
    change(pulled, {"alpha": 8})
    dvc(pulled, "repro", SMALL)
    after = seconds(pulled)
    assert {path for path in after if after[path] != before[path]} == {
        path for path in after if "margin~eqco" in path
    }
    for first, second in (("HEAD", ""), ("HEAD~1", "HEAD")):
        between = [first, *([second] if second else [])]
        params = dvc(pulled, "params", "diff", *between)
        assert [line for line in params.splitlines() if "alpha" in line and "256" in line]
        metrics = json.loads(dvc(pulled, "metrics", "diff", "--json", *between))
        changed = metrics["results/small/metrics.json"]
        assert all("m=eqco" in name for name in changed)
        assert changed
        if not second:
            commit(pulled, "alpha 8")
    page = dvc(pulled, "plots", "diff", "HEAD~1", "HEAD", "--out", "plots")
    html = Path(page.split("file://")[1].split()[0]).read_text()
    assert "small: accuracy [%] against K" in html
    shown = json.loads(dvc(pulled, "plots", "diff", "HEAD~1", "HEAD", "--json"))
    (plot,) = shown["data"]["results/small/table.csv"]
    rows = plot["content"]["data"]["values"]
    assert {row["rev"] for row in rows} == {"HEAD~1", "HEAD"}
    assert {row["negatives"] for row in rows} == {"1", "16"}
    # and back, by a checkout: nothing is trained again
    ok(pulled, "git", "checkout", "-q", "HEAD~1")
    dvc(pulled, "checkout")
    assert "up to date" in dvc(pulled, "repro", SMALL)
    assert seconds(pulled) == before


def test_results_without_records_are_refused_under_another_parameter(clone):
    """The silent wrong result: nothing trained, the new value recorded beside the old results."""
    dvc(clone, "pull", f"{PIPELINE}:data@digits")
    dvc(clone, "pull", CELLS)
    locked = (clone / "workflow/dvc.lock").read_text()
    change(clone, {"temperature": 0.5})
    done = run(clone, "dvc", "repro", SMALL)
    assert done.returncode != 0
    assert "is a result of other parameters" in done.stdout + done.stderr
    assert (clone / "workflow/dvc.lock").read_text() == locked


@pytest.mark.slow  # test_workflow has it without DVC
def test_records_of_another_commit_are_refused(pulled):
    """Its cousin: back on the first commit, but with the second's records."""
    change(pulled, {"temperature": 0.5})
    dvc(pulled, "repro", SMALL)
    commit(pulled, "temperature 0.5")
    ok(pulled, "git", "checkout", "-q", "HEAD~1")
    dvc(pulled, "checkout", CELLS)
    change(pulled, {"temperature": 0.5})
    done = run(pulled, "dvc", "repro", SMALL)
    assert done.returncode != 0
    assert "is a result of other parameters" in done.stdout + done.stderr


def start_repro(folder: Path) -> subprocess.Popen[bytes]:
    """`dvc repro` in a process group of its own."""
    return subprocess.Popen(
        [BIN / "dvc", "repro", SMALL],
        cwd=folder,
        env={**cold(folder), **AUTHOR, "PATH": f"{BIN}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def test_a_killed_repro_keeps_what_is_finished_and_goes_on(pulled):
    change(pulled, {"temperature": 0.5})
    before = seconds(pulled)
    process = start_repro(pulled)
    while len(done := changed(before, pulled)) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    dvc(pulled, "repro", SMALL)
    after = seconds(pulled)
    assert {path: after[path] for path in done} == done
    assert len(changed(before, pulled)) == 4
    assert "up to date" in dvc(pulled, "repro", SMALL)


def changed(before: dict[str, float], folder: Path) -> dict[str, float]:
    """The trainings that are not those of ``before``."""
    while True:
        try:
            now = seconds(folder)
            return {path: value for path, value in now.items() if before.get(path) != value}
        except (OSError, ValueError):  # one was just replaced
            continue


def test_an_experiment_is_one_command(pulled):
    dvc(pulled, "exp", "run", "-S", "params/small.yaml:evaluate.knn.k=3", SMALL)
    shown = dvc(pulled, "exp", "diff", "--json")
    assert json.loads(shown)["params"]["params/small.yaml"] == {
        "evaluate.knn.k": {"old": 5, "new": 3, "diff": -2}
    }


def test_a_half_written_or_changed_output_is_noticed_and_brought_back(pulled):
    path = next(pulled.glob(f"{CELLS}/**/encoder.safetensors"))
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert "modified" in dvc(pulled, "status", SMALL)
    done = run(pulled, "dvc", "checkout")
    assert done.returncode != 0  # what is there may be somebody's work
    assert path.read_bytes() == whole[:1000]
    dvc(pulled, "checkout", "--force")
    assert path.read_bytes() == whole


def test_a_corrupt_object_is_not_pulled(clone, origin, tmp_path):
    store = shutil.copytree(origin.parent / "store", tmp_path / "store")
    dvc(clone, "remote", "modify", "--local", "store", "url", str(store))
    largest = max(store.rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    largest.chmod(0o644)
    largest.write_bytes(largest.read_bytes()[:-1] + b"x")
    done = run(clone, "dvc", "pull")
    assert done.returncode != 0
    assert "corrupted" in (done.stdout + done.stderr) or "failed" in (done.stdout + done.stderr)


def test_without_a_remote_a_pull_says_so(clone):
    dvc(clone, "remote", "remove", "store")
    done = run(clone, "dvc", "pull")
    assert done.returncode != 0
    assert "No remote provided and no default remote set" in done.stderr


@pytest.mark.slow  # test_workflow has two Snakemakes
def test_a_second_repro_at_once_is_told(pulled):
    change(pulled, {"alpha": 8})
    process = start_repro(pulled)
    lock = pulled / "results/small/lock"
    held = lock.read_text() if lock.exists() else ""
    while not lock.exists() or lock.read_text() in ("", held):
        assert process.poll() is None
        time.sleep(0.02)
    second = run(pulled, "dvc", "repro", SMALL)
    assert second.returncode != 0
    assert "busy" in second.stdout + second.stderr
    assert process.wait() == 0


def test_nothing_is_sent_home(origin):
    for key in ("core.analytics", "core.check_update"):
        assert ok(origin, "dvc", "config", key).strip() == "false"
