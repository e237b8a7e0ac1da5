"""The limits of control groups of both versions, of a job, and of this machine."""

import os
from pathlib import Path

import psutil
import pytest

from eqco.runtime.allocation import cores, memory

SLURM = ("SLURM_CPUS_ON_NODE", "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU")
VERSION_1 = {
    "cpu/pods/a/cpu.cfs_quota_us": "50000",
    "cpu/pods/a/cpu.cfs_period_us": "100000",
    "cpu/pods/cpu.cfs_quota_us": "-1",
    "cpu/pods/cpu.cfs_period_us": "100000",
    "memory/pods/memory.limit_in_bytes": "3000000",
    "memory/pods/a/memory.limit_in_bytes": str(2**63 - 4096),
}
VERSION_2 = {
    "pods/a/cpu.max": "50000 100000",
    "pods/cpu.max": "max 100000",
    "pods/memory.max": "3000000",
    "pods/a/memory.max": "max",
}
LINES = {"1": "3:memory:/pods/a\n2:cpu,cpuacct:/pods/a\n0::/\n", "2": "0::/pods/a\n"}


@pytest.fixture(autouse=True)
def outside_of_a_job(monkeypatch):
    for name in SLURM:
        monkeypatch.delenv(name, raising=False)


def groups(folder: Path, files: dict[str, str], lines: str) -> tuple[Path, Path]:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")
    (folder / "own").write_text(lines)
    return folder, folder / "own"


@pytest.mark.parametrize(("version", "files"), [("1", VERSION_1), ("2", VERSION_2)])
def test_the_smallest_limit_of_a_control_group_and_those_above(version, files, tmp_path):
    places = groups(tmp_path, files, LINES[version])
    assert cores(*places) == (0.5, "a control group")
    assert memory(*places) == (3_000_000, "a control group")


@pytest.mark.parametrize(("version", "files"), [("1", VERSION_1), ("2", VERSION_2)])
def test_in_a_container_the_path_outside_leads_nowhere(version, files, tmp_path):
    inside = {name.replace("pods/a/", "").replace("pods/", "x/"): t for name, t in files.items()}
    inside |= {"memory/memory.limit_in_bytes": "4000000", "memory.max": "4000000"}
    places = groups(tmp_path, inside, LINES[version].replace("pods", "elsewhere"))
    assert cores(*places) == (0.5, "a control group")
    assert memory(*places) == (4_000_000, "a control group")


def test_without_limits_it_is_the_machine(tmp_path):
    (tmp_path / "own").write_text("0::/\n")
    assert memory(tmp_path, tmp_path / "own") == (psutil.virtual_memory().total, "the machine")
    assert cores(tmp_path, tmp_path / "own").amount == len(os.sched_getaffinity(0))
    assert memory(tmp_path, tmp_path / "none").by == "the machine"


def test_fewer_cores_by_affinity(tmp_path):
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("has one core")
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores(tmp_path, tmp_path / "none") == (1, "this process's affinity")
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("per", "megabytes", "expected"),
    [("NODE", "100", 100 * 2**20), ("CPU", "30", 30 * 2**20), ("NODE", "0", None)],
)
def test_the_memory_of_a_job(monkeypatch, tmp_path, per, megabytes, expected):
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "1")
    monkeypatch.setenv(f"SLURM_MEM_PER_{per}", megabytes)
    found = memory(tmp_path, tmp_path / "none")
    whole = (psutil.virtual_memory().total, "the machine")
    assert found == ((expected, "the SLURM job") if expected else whole)
    assert cores(tmp_path, tmp_path / "none").amount == 1
