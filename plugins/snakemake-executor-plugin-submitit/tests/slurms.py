"""Real SLURMs, and projects on them: the fixtures of these tests."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster, missing
from made import Made
from project import Project

# the fixtures that start one; most tests ask for them through others
STARTED = {"slurm", "another_slurm", "slurm_with_sacct", "slurm_with_cgroups"}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slurm: starts a SLURM; skipped where it is not installed")


@pytest.hookimpl(tryfirst=True)  # before ``-m`` chooses by it
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if STARTED.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("slurm")


def started(*, accounting: bool = False, cgroup: bool = False) -> Iterator[Cluster]:
    if why := missing(accounting):
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="submitit-slurm-"))
    cluster = Cluster(folder, accounting=accounting, cgroup=cgroup)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """Without accounting: the executor asks squeue."""
    yield from started()


@pytest.fixture(scope="session")
def another_slurm() -> Iterator[Cluster]:
    """For a file that takes its memory, while jobs of its own run on the other."""
    yield from started()


@pytest.fixture(scope="session")
def slurm_with_sacct() -> Iterator[Cluster]:
    yield from started(accounting=True)


@pytest.fixture
def slurm_with_cgroups() -> Iterator[Cluster]:
    """It enforces mem_mb."""
    if not os.access("/sys/fs/cgroup/memory/memory.limit_in_bytes", os.R_OK):
        pytest.skip("needs control groups of version 1")
    yield from started(cgroup=True)


@pytest.fixture(scope="module")
def fork_server() -> None:
    """Nothing: a repository around these tests may put a faster ``snakemake`` on PATH."""


@pytest.fixture
def project(slurm: Cluster, tmp_path: Path, fork_server: None) -> Iterator[Project]:
    slurm.set_up_again()
    project = Project(tmp_path, slurm)
    yield project
    project.end()


@pytest.fixture(scope="module")
def projects(
    tmp_path_factory: pytest.TempPathFactory, fork_server: None
) -> Iterator[Callable[..., Project]]:
    """Make a project that several tests look at, ``projects(slurm)``; it ends with the file."""
    made = []

    def make(cluster: Cluster | None = None) -> Project:
        if cluster:
            cluster.set_up_again()
        made.append(Project(tmp_path_factory.mktemp("project"), cluster))
        return made[-1]

    yield make
    for project in made:
        project.end()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    made = Made(tmp_path)
    yield made
    made.project.end()
