"""The dependency sets of pyproject.toml are what is imported, and constraints.txt pins them."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, version
from pathlib import Path

import pytest
from helpers import EXECUTOR, PACKAGES, PLUGINS, ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ABOUT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OWN = {
    path.stem
    for place in (".", *PLUGINS, f"{EXECUTOR}/tests", "tests", "tests/*", "docs/make")
    for path in ROOT.glob(f"{place}/*")
}
# not imported: pandas imports tabulate, and DVC is a command
COMMANDS = {"tabulate", "dvc"}


def names(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def group(name: str) -> set[str]:
    entries = ABOUT["dependency-groups"][name]
    included = [group(entry["include-group"]) for entry in entries if isinstance(entry, dict)]
    return names(entry for entry in entries if isinstance(entry, str)).union(*included)


def imported(*folders: str) -> set[str]:
    """The distributions that the source below some folders imports, at any place."""
    modules = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    modules |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    modules.add(node.module)
    top = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - OWN
    known = packages_distributions()
    return {canonicalize_name(known[name][0]) for name in top}


DEPENDENCIES = names(ABOUT["project"]["dependencies"])
EXTRAS = set().union(*map(names, ABOUT["project"]["optional-dependencies"].values()))
PLUGIN = tomllib.loads((ROOT / EXECUTOR / "pyproject.toml").read_text())
GROUPS = ("test", "lint", "docs", "lock")
EXTRA_TABLE, GROUP_TABLE = ABOUT["project"]["optional-dependencies"], ABOUT["dependency-groups"]


def test_the_dependencies_are_what_the_package_and_the_plugins_import():
    assert imported(*PACKAGES) == DEPENDENCIES - COMMANDS


def test_the_executors_own_dependencies_are_what_it_imports_and_fit_what_is_installed():
    texts = PLUGIN["project"]["dependencies"]
    assert imported(f"{EXECUTOR}/snakemake_executor_plugin_submitit") == names(texts)
    assert names(texts) < DEPENDENCIES
    for one in map(Requirement, texts):
        assert one.specifier.contains(version(one.name)), one
    tools = names(PLUGIN["dependency-groups"]["test"])
    assert imported(f"{EXECUTOR}/tests") <= names(texts) | tools


def test_the_executor_has_the_license_and_the_python_of_the_project_and_tells_its_version():
    for key in ("license", "requires-python"):
        assert PLUGIN["project"][key] == ABOUT["project"][key]
    assert (ROOT / EXECUTOR / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    (latest, *_) = re.findall(r"^## (\S+)", (ROOT / EXECUTOR / "CHANGELOG.md").read_text(), re.M)
    assert latest in (PLUGIN["project"]["version"], "Unreleased")


def test_tests_import_the_dependencies_and_their_group_alone():
    assert imported("tests", f"{EXECUTOR}/tests") <= DEPENDENCIES | group("test")


@pytest.mark.parametrize("name", GROUPS)
def test_no_tool_is_a_dependency(name):
    assert not group(name) & DEPENDENCIES


def test_extras_are_no_dependencies_and_the_tests_have_them():
    assert not EXTRAS & DEPENDENCIES
    assert group("test") >= EXTRAS


def requirements(*tables: Mapping[str, list]) -> list[Requirement]:
    texts = [*ABOUT["project"]["dependencies"]]
    for entries in (entries for table in tables for entries in table.values()):
        texts += [entry for entry in entries if isinstance(entry, str)]
    return [Requirement(text) for text in texts]


def wanted(asked: list[Requirement]) -> dict[str, SpecifierSet]:
    """The distributions that some requirements need here in the end, each with its range."""
    ranges: dict[str, SpecifierSet] = defaultdict(SpecifierSet)
    seen = set()
    waiting = [*asked]
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        ranges[name] &= one.specifier
        for extra in {"", *one.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += needed(name, extra)
    return ranges


def needed(name: str, extra: str) -> list[Requirement]:
    try:
        known = [Requirement(text) for text in distribution(name).requires or []]
    except PackageNotFoundError:  # of a group that is not installed
        return []
    return [one for one in known if one.marker is None or one.marker.evaluate({"extra": extra})]


def pins(file: Path) -> dict[str, str]:
    """The versions that a file pins; it has nothing else but comments and hashes."""
    text = re.sub(r"^#.*\n| \\\n    --hash=sha256:[0-9a-f]{64}", "", file.read_text(), flags=re.M)
    pairs = re.findall(r"^([\w.-]+)==([\w.]+)$", text, re.M)
    assert len(pairs) == text.count("\n"), text
    return {canonicalize_name(name): version for name, version in pairs}


PINS, PINS_OF_CUDA = pins(ROOT / "constraints.txt"), pins(ROOT / "constraints-cuda.txt")


def test_every_distribution_is_pinned_to_a_version_that_is_in_all_ranges():
    pinned = PINS | PINS_OF_CUDA
    ranges = wanted(requirements(EXTRA_TABLE, GROUP_TABLE))
    assert set(ranges) <= set(pinned)
    for name, allowed in ranges.items():
        assert allowed.contains(pinned[name], prereleases=True), (name, allowed)


def test_the_pins_of_cuda_stand_apart():
    of_cuda = ("cuda-", "nvidia-", "triton")
    assert not [name for name in PINS if name.startswith(of_cuda)]
    assert all(name.startswith(of_cuda) for name in PINS_OF_CUDA)


@pytest.fixture
def bare(tmp_path) -> Path:
    """A folder with what `make` installs by."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "constraints-cuda.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder: Path, *arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": path}
    command = ["make", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


UNDER_UV = "uv pip install --python .venv/bin/python"
CUDA_PINS = "--constraint constraints-cuda.txt"


@pytest.mark.parametrize(
    ("uv", "asked", "command", "of_cuda"),
    [
        (False, (), ".venv/bin/pip install", True),
        (True, (), f"{UNDER_UV} --torch-backend=auto", False),
        (True, ("TORCH_BACKEND=cpu",), f"{UNDER_UV} --torch-backend=cpu", False),
        (True, ("TORCH_BACKEND=",), UNDER_UV, True),
        (True, ("UV=",), ".venv/bin/pip install", True),
    ],
)
def test_make_installs_by_uv_where_it_is_on_the_path(bare, uv, asked, command, of_cuda):
    done = make(bare, "-n", ".venv/installed-lint", *asked, path=on_path(bare, uv))
    lines = done.stdout.splitlines()
    installs = [line.removeprefix(f"{bare}/") for line in lines if " install " in line]
    assert len(installs) == 3
    for line in installs:
        assert line.startswith(f"{command} --constraint constraints.txt "), line
        assert ("--torch-backend" in line) == ("--torch-backend" in command)
        assert (CUDA_PINS in line) == of_cuda


def on_path(folder: Path, uv: bool) -> str:
    """A PATH on which there is a program of this name, which is not run, or none."""
    if uv:
        (folder / "uv").symlink_to("/bin/false")
    return f"{folder}:/usr/bin:/bin"


def test_make_refuses_a_build_of_torch_that_pip_cannot_choose(bare):
    done = make(bare, "-n", "demo", "TORCH_BACKEND=cpu", path=on_path(bare, uv=False))
    assert done.returncode == 2
    assert "TORCH_BACKEND=cpu: only uv chooses a build of torch, and it is not" in done.stderr


@pytest.mark.slow
def test_make_lock_pins_the_pipeline_with_hashes_and_without_hosts(bare):
    venv.create(bare / ".venv", with_pip=True)
    (bare / ".venv" / "installed").touch()  # 6 GB that it does not need
    done = make(bare, "lock", path=os.environ["PATH"])
    if "No matching distribution found for uv" in done.stderr or "Failed to fetch" in done.stderr:
        pytest.skip("needs an index of packages")
    assert done.returncode == 0, done.stderr
    locked = bare / "requirements.txt"
    assert "://" not in locked.read_text()
    found = pins(locked)
    assert found.items() <= (PINS | PINS_OF_CUDA).items()
    assert set(found) == set(wanted(requirements()))


def test_make_demo_installs_no_group():
    rules = dict(
        re.findall(r"^(\S+):.* \$\(VENV\)/(installed\S*)$", (ROOT / "Makefile").read_text(), re.M)
    )
    assert rules["demo"] == "installed"
    found = {target: rules[target] for target in ("test", "test-slow", "lint", "docs")}
    assert found == {
        **{"test": "installed-test", "test-slow": "installed-test"},
        **{"lint": "installed-lint", "docs": "installed-docs"},
    }
