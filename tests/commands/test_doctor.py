"""The doctor on machines that lack something: real ones, as far as this machine can be made so."""

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from helpers import ROOT, cold, eqco

from eqco.commands.doctor import CHECKS, DEMO_DISK

pytestmark = pytest.mark.usefixtures("fork_server")
as_root = pytest.mark.skipif(
    os.getuid() != 0, reason="mounts file systems, for which it needs root"
)
without_a_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU")


def examine(folder: Path, **environment: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code, and each check's state and text."""
    done = eqco("doctor", "--json", cwd=folder, env={**os.environ, **environment})
    assert done.stderr == ""
    return done.returncode, by_check(done)


def by_check(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    """Each check's state and text."""
    return {one["check"]: (one["state"], one["text"]) for one in json.loads(done.stdout)}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with what the demo starts from, on a machine without GPUs and SLURM."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{programs(tmp_path / 'bin', 'git')}")
    return a_project(tmp_path / "project")


def a_project(folder: Path) -> Path:
    (folder / "params").mkdir(parents=True)
    for name in ("Snakefile", "params/demo.yaml"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def programs(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(shutil.which(name))
    return folder


def test_a_machine_without_slurm_and_gpu_runs_the_demo(folder):
    code, found = examine(folder)
    assert code == 0
    assert list(found) == list(CHECKS)
    assert found["slurm"] == ("note", "none on PATH: a grid runs on this machine")
    assert found["gpus"] == ("note", "none: cells train on the CPU")
    for name in ("packages", "cores", "memory", "disk", "flock", "project"):
        assert found[name][0] == "ok", found
    assert found["torch"][0] == "ok"
    assert found["torch"][1].startswith(f"{torch.__version__}, built for ")
    assert found["dvc"] == ("ok", f"{version('dvc')}; this folder is not under DVC")
    assert {path.name for path in folder.iterdir()} == {"Snakefile", "params"}


def test_each_check_is_a_line(folder):
    done = eqco("doctor", cwd=folder)
    assert [line.split()[1] for line in done.stdout.splitlines()] == list(CHECKS)
    assert "note  slurm     none on PATH" in done.stdout


def test_the_report_names_nobody_and_no_place(folder, monkeypatch):
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("['remote \"away\"']\nurl = ssh://me@host.example/x\n")
    monkeypatch.setenv("EQCO_DEVICE", "a-secret-value")
    text = eqco("doctor", "--json", cwd=folder).stdout
    private = [
        socket.gethostname(),
        str(folder),
        str(Path.home()),
        "a-secret-value",
        "host.example",
    ]
    assert [word for word in [*private, f"{getpass.getuser()}@", "me@"] if word in text] == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpus_that_torch_can_use(folder, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    state, text = examine(folder)[1]["gpus"]
    assert state == "ok"
    assert torch.cuda.get_device_name(0) in text


@without_a_gpu
def test_a_gpu_that_torch_cannot_use(folder):
    code, found = examine(folder, CUDA_VISIBLE_DEVICES="0")
    assert code == 1
    assert found["gpus"][0] == "fix"
    assert "1, of which torch sees none: it is built for" in found["gpus"][1]
    code, found = examine(folder, CUDA_VISIBLE_DEVICES="0", EQCO_DEVICE="cpu")
    assert (code, found["gpus"][0]) == (0, "note")


def test_another_folder_than_the_projects(tmp_path):
    code, found = examine(tmp_path)
    assert code == 1
    assert found["project"][0] == "fix"
    assert "no Snakefile and no params/demo.yaml here" in found["project"][1]


@pytest.fixture
def mounted(tmp_path) -> Iterator[Callable[[str], Path]]:
    """Make a project on a file system of its own, of memory."""
    place = tmp_path / "mounted"
    place.mkdir()

    def make(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount a file system: {done.stderr.strip()}")
        project = a_project(place / "project")
        if options:
            subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)
        return project

    yield make
    subprocess.run(["umount", str(place)], check=False, capture_output=True)


@as_root
def test_a_disk_that_is_too_small_and_then_full(mounted):
    project = mounted("")
    code, found = examine(project)
    assert code == 1
    assert found["disk"] == (
        "fix",
        f"0.0 GB free on tmpfs, No space left on device: the demo needs {DEMO_DISK / 1e9:g} GB",
    )
    assert found["flock"][0] == "ok"
    with pytest.raises(OSError, match="space"):
        (project / "filling").write_bytes(bytes(2_000_000))
    code, found = examine(project)
    assert code == 1
    assert found["disk"][0] == found["flock"][0] == "fix"
    assert "No space left on device" in found["flock"][1]


@as_root
def test_a_folder_that_cannot_be_written(mounted):
    code, found = examine(mounted("ro"))
    assert code == 1
    for name in ("disk", "flock"):
        assert found[name][0] == "fix"
        assert "Read-only file system" in found[name][1]


@pytest.mark.parametrize(
    ("megabytes", "code", "expected"),
    [
        (900, 1, ("fix", "0.9 GB, by a control group: the demo needs 1 GB")),
        pytest.param(
            *(1_100, 0),
            ("note", "1.1 GB, by a control group: no cell on every core: snakemake --cores 1"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_control_group_of_little_memory(folder, megabytes, code, expected):
    if code == 0 and len(os.sched_getaffinity(0)) == 1:
        pytest.skip("has one core")
    group = Path("/sys/fs/cgroup/memory", f"eqco-doctor-{os.getpid()}")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a control group of version 1: {error.strerror}")
    try:
        (group / "memory.limit_in_bytes").write_text(str(megabytes * 10**6))
        done = subprocess.run(
            [sys.executable, "-m", "eqco", "doctor", "--json"],
            cwd=folder,
            env=cold(ROOT),
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: (group / "cgroup.procs").write_text("0"),  # 0: the writer
        )
    finally:
        group.rmdir()
    assert done.returncode == code, done
    assert by_check(done)["memory"] == expected


def without(distribution: str, *modules: str, folder: Path) -> dict[str, str]:
    """The environment of a Python whose packages are ours, without a distribution."""
    packages = Path(sysconfig.get_path("purelib"))
    folder.mkdir()
    for entry in packages.iterdir():
        name = entry.name.partition("-")[0]
        if entry.name not in modules and name != distribution:
            (folder / entry.name).symlink_to(entry)
    return {**cold(ROOT), "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}


@pytest.mark.parametrize(
    ("distribution", "code", "check", "expected"),
    [
        ("dvc", 0, "dvc", "not installed; only versions of results need it: pip install dvc"),
        (
            "snakemake",
            1,
            "packages",
            "snakemake is missing: install eqco again, with its dependencies",
        ),
        ("torch", 1, "torch", "cannot be imported, ModuleNotFoundError: install torch again"),
    ],
)
def test_without_a_package(folder, tmp_path, distribution, code, check, expected):
    environment = without(distribution, distribution, folder=tmp_path / "packages")
    done = subprocess.run(
        [sys.executable, "-S", "-m", "eqco", "doctor", "--json"],  # -S: without our packages
        cwd=folder,
        env={**environment, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done
    found = by_check(done)
    assert found[check][0] == ("fix" if code else "note")
    assert found[check][1].endswith(expected)


def test_a_package_of_another_version(folder, tmp_path):
    """Snakemake is asked for exactly; one of another version is before ours on the path."""
    info = tmp_path / "older" / "snakemake-9.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: snakemake\nVersion: 9.1.0\n")
    done = subprocess.run(
        [sys.executable, "-m", "eqco", "doctor"],
        cwd=folder,
        env={**cold(ROOT), "PYTHONPATH": f"{ROOT}{os.pathsep}{info.parent}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"snakemake is 9.1.0, not =={version('snakemake')}: " in done.stdout


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://bucket/x", ("note", "remotes: away (s3): pip install dvc-s3")),
        ("/somewhere", ("ok", "remotes: away (a folder)")),
    ],
)
def test_the_remotes_of_dvc(folder, url, expected):
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text(f"['remote \"away\"']\n    url = {url}\n")
    (folder / ".git").mkdir()
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    state, text = examine(folder)[1]["dvc"]
    assert (state, text.partition(", ")[2]) == expected


SCONTROL = """#!/bin/sh
echo "Configuration data as of 2026-11-27T00:00:00"
echo "MaxArraySize            = 501"
echo "MaxJobCount             = 200"
echo "SLURM_VERSION           = 23.11.4"
"""


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (SCONTROL, ("ok", "SLURM_VERSION 23.11.4, MaxArraySize 501, MaxJobCount 200")),
        (
            "#!/bin/sh\nexit 1\n",
            ("note", "on PATH, but no controller answers: a grid runs on this machine"),
        ),
    ],
)
def test_a_slurm_with_or_without_a_controller(folder, tmp_path, program, expected):
    """A made-up program: tests/slurm has a real one."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(program)
    scontrol.chmod(0o755)
    code, found = examine(folder)
    assert (code, found["slurm"]) == (0, expected)


def test_torch_is_imported_by_its_check_alone():
    program = "import sys, eqco.commands.doctor as d; d._packages(); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=cold(ROOT), capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
