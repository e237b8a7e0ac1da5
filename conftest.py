"""The start of many tests: a tiny study, its packed data, fork servers, real SLURMs."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import forked
import hypothesis
import pytest
import torch
import yaml
from helpers import CHROMIUM_FLAGS, TINY, with_values
from playwright.sync_api import Browser, sync_playwright

from eqco import forkserver
from eqco.data import sources
from eqco.study.load import load_study, parse_study
from eqco.study.study import Study

pytest_plugins = ["slurms"]  # of the tests of the executor

# Workers take files in this order, the longest first; files that compute and that wait alternate.
LONGEST = (
    *("test_dvc", "test_endings", "test_docs", "test_left_behind", "test_workflow", "test_faults"),
    *("test_disturbed_cells", "test_long_waits", "test_chaos", "test_executor", "test_quick"),
    *("test_slurm_grid", "test_site", "test_requeues", "test_checkpoint", "test_distributed"),
    *("test_groups", "test_workflows", "test_new", "test_archived", "test_export", "test_archives"),
    *("test_transfer", "test_selecting", "test_report", "test_committed", "test_published"),
)

torch.set_num_threads(1)
# Machines are shared: no test asserts a time.
hypothesis.settings.register_profile("eqco", deadline=None)
hypothesis.settings.load_profile("eqco")
# A shell's background jobs ignore it, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST)

    items.sort(key=place)


def start_servers() -> dict[str, str]:
    """Start the fork servers, which end with this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # several tests run at once
        return {"address": forked.start_eqco(), "programs": str(forked.start())}


@cache
def servers_of_all_workers() -> dict[str, str]:
    return start_servers()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of xdist where the servers are."""
    node.workerinput["servers"] = servers_of_all_workers()


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> dict[str, str]:
    worker = getattr(request.config, "workerinput", None)
    return worker["servers"] if worker else start_servers()


@pytest.fixture(scope="session")
def address(servers) -> str:
    """A fork server's."""
    return servers["address"]


@pytest.fixture(scope="session")
def programs(servers) -> Path:
    """Folder of the programs that fork: ``snakemake``, ``dvc``."""
    return Path(servers["programs"])


@pytest.fixture(scope="module")
def fork_server(address, programs) -> Iterator[None]:
    """Commands without the wait for imports; test_forkserver, test_workflow: they are the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(forkserver.VARIABLE, address)
        # and this environment's, which may not be activated
        patch.setenv("PATH", f"{programs}:{Path(sys.executable).parent}", prepend=os.pathsep)
        yield


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen]]:
    """A list for processes that a test starts; they are killed at its end."""
    started: list[subprocess.Popen] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def tiny_values() -> dict[str, Any]:
    return yaml.safe_load(TINY.read_text())


@pytest.fixture
def study_with(tiny_values):
    """Make a study from the tiny one: ``study_with({"pretrain.batch": 3})``."""

    def make(changes: dict[str, Any]) -> Study:
        return parse_study(with_values(tiny_values, changes), "tiny.yaml")

    return make


@pytest.fixture(scope="session")
def tiny() -> Study:
    return load_study(TINY)


@pytest.fixture(scope="session")
def digits(tmp_path_factory, tiny) -> Path:
    """Folder of the packed digits."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    sources.prepare(tiny.data, folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium: sh .ci/packages.sh chromium installs it")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield started
        started.close()
