"""The executor as others have it: a distribution beside a plain Snakemake, without eqco."""

import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest
from helpers import EXECUTOR, ROOT, output_of

from eqco import forkserver

pytestmark = pytest.mark.slow  # five minutes: each Snakemake starts cold
ALIEN = ("eqco", "torch", "dvc", "snakemake_logger_plugin_eqco")
ON_SLURM = ("tests/test_requeues.py", "tests/test_workflows.py")  # a choice: all take minutes


class Plain:
    """An environment with the plugin's wheel, Snakemake and pytest, and the plugin's sdist.

    Attributes:
        sdist: the folder of its files, but for the package, so that the installed one is tested.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sdist = folder / "sdist"
        venv.create(folder / "venv", with_pip=False)
        own = ("PYTHONPATH", "VIRTUAL_ENV", forkserver.VARIABLE)
        self.environment = {name: value for name, value in os.environ.items() if name not in own}
        path = (str(folder / "venv" / "bin"), os.environ["PATH"])
        self.environment["PATH"] = os.pathsep.join(path)

    def pip(self, *what: str) -> None:
        python = str(self.folder / "venv" / "bin" / "python")
        pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q")
        pinned = ("--constraint", str(ROOT / "constraints.txt"))
        subprocess.run([*pip, *pinned, *what], check=True)

    def build(self) -> None:
        """Build wheel and sdist, install the one and unpack the other."""
        built = self.folder / "built"
        command = ["python", "-m", "hatchling", "build", "-d", str(built)]
        self(*command, folder=ROOT / EXECUTOR)
        (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
        self.pip(str(wheel), "snakemake", "pytest")
        with tarfile.open(sdist) as archive:
            archive.extractall(self.folder, filter="data")
        (self.folder / sdist.name.removesuffix(".tar.gz")).rename(self.sdist)
        package = self.sdist / "snakemake_executor_plugin_submitit"
        package.rename(self.folder / "package of the sdist")

    def __call__(self, *command: str, folder: Path | None = None) -> str:
        """The output of a command in the folder of the sdist, or another."""
        return output_of(command, cwd=folder or self.sdist, env=self.environment)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Plain:
    plain = Plain(tmp_path_factory.mktemp("plain"))
    try:
        plain.pip("hatchling")
    except subprocess.CalledProcessError:
        pytest.skip("needs an index of packages")
    plain.build()
    return plain


def test_nothing_of_the_project_is_there(plain):
    script = "import importlib.util as util, sys; print([*map(util.find_spec, sys.argv[1:])])"
    found = plain("python", "-c", script, *ALIEN)
    assert found == f"{[None] * len(ALIEN)}\n"
    assert "--submitit-cluster" in plain("snakemake", "--help")


def test_its_tests_pass_without_slurm(plain):
    told = plain("pytest", "-m", "not slurm")
    assert "passed" in told
    assert "skipped" not in told


def test_its_tests_pass_on_slurm(plain):
    told = plain("pytest", "-m", "slurm", *ON_SLURM)
    assert "passed" in told or "skipped" in told
