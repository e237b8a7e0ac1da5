"""Real SLURMs for the tests of this folder."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, missing
from project import Project


def started(*, accounting: bool = False, cgroup: bool = False) -> Iterator[Cluster]:
    if why := missing(accounting):
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="eqco-slurm-"))
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
def slurm_with_sacct() -> Iterator[Cluster]:
    yield from started(accounting=True)


@pytest.fixture
def slurm_with_cgroups() -> Iterator[Cluster]:
    """It enforces mem_mb."""
    if not os.access("/sys/fs/cgroup/memory/memory.limit_in_bytes", os.R_OK):
        pytest.skip("needs control groups of version 1")
    yield from started(cgroup=True)


@pytest.fixture
def project(slurm: Cluster, tmp_path: Path, fork_server: None) -> Iterator[Project]:
    slurm.set_up_again()
    project = Project(tmp_path, slurm)
    yield project
    project.end()
