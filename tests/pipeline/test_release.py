"""A release: one version everywhere, a wheel of its tag, files for GitHub and the catalog."""

import datetime
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from helpers import ROOT
from snakemake.cli import get_argument_parser

from eqco import __version__

CI = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
CATALOG = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())


def test_version_and_date_are_the_same_in_every_file():
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    released = [heading for heading in headings if heading != "Unreleased"]
    version, date = released[0].split(", ")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert version == citation["version"] == __version__
    assert datetime.date.fromisoformat(date) == citation["date-released"]


def git(folder: Path, *arguments: str) -> str:
    person = ("-c", "user.name=a", "-c", "user.email=a@b")
    command = ["git", *person, *arguments]
    return subprocess.check_output(command, cwd=folder, text=True).strip()


def build(checkout: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder)]
    return subprocess.run([*command, str(checkout)], capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path) -> Path:
    folder = tmp_path / "eqco"
    git(tmp_path, "clone", "-q", "--no-tags", "--depth", "1", f"file://{ROOT}", str(folder))
    return folder


def test_a_wheel_of_a_tag_has_its_version_and_its_revision(checkout, tmp_path):
    git(checkout, "tag", "-a", f"v{__version__}", "-m", "release")
    done = build(checkout, tmp_path)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"eqco-{__version__}-")
    program = "import eqco, eqco.store.provenance as p; print(eqco.__version__, p.revision())"
    zipfile.ZipFile(wheel).extractall(tmp_path / "unpacked")
    command = [sys.executable, "-c", program]
    told = subprocess.check_output(command, env={}, cwd=tmp_path / "unpacked", text=True)
    assert told == f"{__version__} v{__version__}\n"


def test_no_wheel_is_built_at_the_tag_of_another_version(checkout, tmp_path):
    git(checkout, "tag", "-a", "v9.8.7", "-m", "release")
    done = build(checkout, tmp_path)
    assert done.returncode != 0
    assert f"__version__: {__version__}: this commit is tagged v9.8.7" in done.stdout + done.stderr
    assert not list(tmp_path.glob("*.whl"))


def test_github_runs_what_has_to_pass():
    (job,) = CI["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert ".ci/run" in commands
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    assert {"uses", "run"} >= {next(iter(step)) for step in job["steps"]}
    triggers = CI[True]  # YAML 1.1 reads the key `on` so
    assert set(triggers) == {"push", "pull_request", "workflow_dispatch"}
    # the shell reads each command
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_the_targets_of_the_script_exist():
    makefile = (ROOT / "Makefile").read_text()
    script = (ROOT / ".ci" / "run").read_text()
    targets = re.findall(r"\bmake (\S+)$", script, re.M)
    assert {"lint", "test", "test-slow"} == set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target
    for file in re.findall(r"--configfile (\S+)", script):
        assert (ROOT / file).exists(), file


def test_the_catalog_names_a_command_that_snakemake_takes():
    usage = CATALOG["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    arguments = get_argument_parser().parse_args(usage["mandatory-flags"]["flags"].split())
    assert all((ROOT / file).exists() for file in arguments.configfile)
    (target,) = re.findall(r"`make (\S+)`", usage["mandatory-flags"]["desc"])
    makefile = (ROOT / "Makefile").read_text().replace("$(VENV)", ".venv")
    assert f"\n{target}:" in makefile
