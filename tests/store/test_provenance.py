"""The provenance of a number, in a checkout and in what was installed from it."""

import platform
import resource
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from helpers import ROOT

from eqco import __version__
from eqco.store import provenance

CPU = torch.device("cpu")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def revision_of(folder: Path) -> str:
    """The revision that the package in ``folder`` tells."""
    code = "from eqco.store.provenance import revision; print(revision())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkout") / "eqco"
    git(ROOT, "clone", "-q", "--no-tags", "--depth", "1", f"file://{ROOT}", str(folder))
    return folder


def test_a_checkouts_revision_is_its_commit(checkout):
    head = git(checkout, "rev-parse", "--short=12", "HEAD")
    assert revision_of(checkout) == head
    changed = checkout / "README.md"
    text = changed.read_text()
    changed.write_text(text + "x")
    assert revision_of(checkout) == f"{head}-dirty"
    changed.write_text(text)


def test_new_results_do_not_make_a_revision_dirty(checkout):
    """A grid of several studies in one checkout: the first one's table is tracked."""
    table = next(checkout.glob("results/*/table.md"))
    text = table.read_text()
    table.write_text(text + "x")
    assert revision_of(checkout) == git(checkout, "rev-parse", "--short=12", "HEAD")
    table.write_text(text)


def test_a_wheel_knows_the_revision_that_it_was_built_from(checkout, tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path)]
    done = subprocess.run([*command, str(checkout)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("eqco-*.whl")
    # installed within a repository of somebody else's
    git(tmp_path, "init", "-q")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site-packages")
    assert revision_of(tmp_path / "site-packages") == git(
        checkout, "rev-parse", "--short=12", "HEAD"
    )


def test_a_copy_within_another_repository_has_no_revision(checkout, tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "copy").mkdir()
    subprocess.run(["cp", "-r", str(checkout / "eqco"), str(tmp_path / "copy")], check=True)
    assert revision_of(tmp_path / "copy") == ""


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_megabytes_on_each_system(monkeypatch, system, unit):
    """getrusage counts KiB on Linux and bytes on macOS."""
    monkeypatch.setattr(provenance.sys, "platform", system)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = provenance.peak_memory(CPU)
    assert found["host"] == pytest.approx(peak * unit / 1e6, rel=0.05, abs=0.1)
    assert found["device"] is None


def test_what_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no-such-package"))
    versions = provenance.provenance(CPU)["versions"]
    assert versions == {
        "python": platform.python_version(),
        "eqco": __version__,
        "torch": version("torch"),
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_of_a_gpu_cuda_cudnn_and_driver_are_named():
    versions = provenance.provenance(torch.device("cuda"))["versions"]
    assert versions["cuda"] == torch.version.cuda
    assert versions["cudnn"] == str(torch.backends.cudnn.version())
    assert versions["driver"]
