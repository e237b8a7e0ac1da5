"""The dependency sets of pyproject.toml are what is imported, and constraints.txt pins them."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions, version

import pytest
from helpers import EXECUTOR, PACKAGES, PLUGINS, ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ABOUT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OWN = {
    path.stem
    for place in (".", *PLUGINS, f"{EXECUTOR}/tests", "tests", "tests/*")
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
GROUPS = ("test", "lint", "docs")


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


def test_every_version_is_pinned():
    lines = re.findall(r"^([^#=\s]+)==", (ROOT / "constraints.txt").read_text(), re.M)
    assert DEPENDENCIES.union(EXTRAS, *map(group, GROUPS)) <= set(map(canonicalize_name, lines))


def test_make_demo_installs_no_group():
    rules = dict(
        re.findall(r"^(\S+): \$\(VENV\)/(installed\S*)$", (ROOT / "Makefile").read_text(), re.M)
    )
    assert rules["demo"] == "installed"
    found = {target: rules[target] for target in ("test", "test-slow", "lint", "docs")}
    assert found == {
        **{"test": "installed-test", "test-slow": "installed-test"},
        **{"lint": "installed-lint", "docs": "installed-docs"},
    }
