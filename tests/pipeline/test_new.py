"""A project away from every clone, with a wheel: from `eqco new` to a table."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, TINY, cold, eqco, fails, output_of, with_values

from eqco import forkserver
from eqco.commands.new import COPIED


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The Python of an environment with a wheel of eqco, and with all else that is here."""
    folder = tmp_path_factory.mktemp("installed")
    quiet = ("-q", "--no-deps", "--disable-pip-version-check")
    pip = (sys.executable, "-m", "pip")
    subprocess.run([*pip, "wheel", *quiet, "-w", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("eqco-*.whl")
    venv.create(folder / "venv", with_pip=False)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "eqco" not in entry.name:  # a clone's, by _eqco.pth
            (packages / entry.name).symlink_to(entry)
    interpreter = folder / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", str(interpreter), "install", *quiet, str(wheel)], check=True)
    return interpreter


def run(python: Path, folder: Path, *arguments: str) -> str:
    own = ("PYTHONPATH", forkserver.VARIABLE)
    environment = {name: value for name, value in os.environ.items() if name not in own}
    return output_of([python, "-m", *arguments], cwd=folder, env=environment)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_wheel_makes_a_project_that_runs_to_its_table(python, tmp_path):
    assert str(ROOT) not in run(python, tmp_path, "site")  # the path
    run(python, tmp_path, "eqco", "new", "mine")
    project = tmp_path / "mine"
    made = contents(project)
    assert eqco("new", tmp_path / "from-a-clone", env=cold(ROOT)).returncode == 0
    assert contents(tmp_path / "from-a-clone") == made

    jobs = run(python, project, "snakemake", "-n")
    assert "pretrain          50" in jobs

    values = {"grid.0.negatives": [16], "grid.0.margins": ["eqco"], "grid.0.seeds": [0]}
    study = with_values(yaml.safe_load(TINY.read_text()), {**values, "study": "mine"})
    (project / "params" / "mine.yaml").write_text(yaml.safe_dump(study))
    mine = ("snakemake", "--configfile", "params/mine.yaml")
    run(python, project, *mine)
    assert "| K = 16" in (project / "results/mine/summary.md").read_text()
    made_by = json.loads((project / "results/mine/provenance.json").read_text())["made_by"]
    assert made_by[0]["revision"]  # the wheel's
    assert "Nothing to be done" in run(python, project, *mine)
    assert "project" in run(python, project, "eqco", "doctor")

    # as a job of a cluster parses it, in a process of its own
    shutil.rmtree(project / "results")
    run(
        *(python, project, *mine, "--profile", "slurm", "--submitit-cluster", "local"),
        *("--jobs", "2", "--seconds-between-status-checks", "1", "--latency-wait", "1"),
    )
    assert (project / "results/mine/table.csv").exists()


@pytest.mark.usefixtures("fork_server")
def test_git_and_dvc_read_the_project(tmp_path):
    project = tmp_path / "mine"
    project.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    assert eqco("new", project).returncode == 0
    subprocess.run(["git", "add", "-A"], cwd=project, check=True)
    listed = subprocess.check_output(["git", "ls-files"], cwd=project, text=True).split()
    assert {*COPIED, "Snakefile", "dvc.yaml", ".gitignore", "slurm"} <= {*listed}
    done = subprocess.run(
        ["dvc", "repro", "data@digits"], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (project / "data/digits/MANIFEST.json").exists()
    done = subprocess.run(
        ["dvc", "repro", "--dry", "grid@demo"],
        **{"cwd": project, "capture_output": True, "text": True},
        check=False,
    )
    assert "> python -m snakemake --configfile params/demo.yaml" in done.stdout, done.stderr


@pytest.mark.usefixtures("fork_server")
def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "Snakefile").write_text("mine")
    for name in ("file", "full"):
        assert f"{name}: is not empty; name a folder that is new" in fails("new", tmp_path / name)
    assert (tmp_path / "full" / "Snakefile").read_text() == "mine"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["Snakefile"]


def test_a_package_without_its_workflow_says_so(tmp_path):
    shutil.copytree(ROOT / "eqco", tmp_path / "eqco", ignore=shutil.ignore_patterns("__pycache__"))
    message = fails("new", "mine", cwd=tmp_path, env=cold(tmp_path))
    assert "Snakefile: is missing; install eqco from a wheel or a clone" in message
    assert not (tmp_path / "mine").exists()


def test_the_wheel_has_all_that_is_copied():
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = [Path(name) for name in about["tool"]["hatch"]["build"]["hooks"]["custom"]["project"]]
    assert all((ROOT / name).exists() for name in named)
    for name in (*COPIED, "Snakefile", "workflow/dvc.yaml", "workflow/rules", "workflow/report"):
        assert any(Path(name).is_relative_to(one) for one in named), name
