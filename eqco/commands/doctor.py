"""The checks of a machine and a project: whether the demo can run, and what to do if not."""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

from eqco import __version__
from eqco.runtime import allocation, gpus
from eqco.runtime.lock import hold, is_held
from eqco.store.provenance import revision

State = Literal["ok", "note", "fix"]  # note: the demo runs all the same; fix: it does not
Found = tuple[State, str]

DEMO_DISK = 100e6  # bytes; the demo wrote 36 MB
CELL_MEMORY = 0.5e9  # bytes of one of its cells, and of Snakemake and the fork server together
SLURM_SECONDS = 10  # to wait for a controller
BUILT_IN = ("", "http", "https", "local")  # remotes that DVC reaches without a plugin


class Check(NamedTuple):
    """A line of the report. It names no user, host, path or environment variable."""

    check: str
    state: State
    text: str


def checks() -> Iterator[Check]:
    """Each check, as soon as it is made; they look at this folder and this environment."""
    for name, check in CHECKS.items():
        yield Check(name, *check())


def _revision() -> Found:
    known = revision()
    if not known:
        return "note", f"{__version__}, revision unknown: tables cannot say what made them"
    if known.endswith("-dirty"):
        return "note", f"{__version__}, {known}: commit your changes before a run that counts"
    return "ok", f"{__version__}, {known}, no changes"


def _packages() -> Found:
    python = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    try:
        wanted = [Requirement(line) for line in requires("eqco") or []]
    except PackageNotFoundError:
        return "note", f"{python}; eqco is imported, but not installed: pip install --editable ."
    wrong = []
    for one in wanted:
        if one.name == "dvc" or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue  # dvc has a check of its own
        try:
            found = version(one.name)
        except PackageNotFoundError:
            wrong.append(f"{one.name} is missing")
            continue
        if not one.specifier.contains(found, prereleases=True):
            wrong.append(f"{one.name} is {found}, not {one.specifier}")
    if wrong:
        return "fix", f"{python}; {', '.join(wrong)}: install eqco again, with its dependencies"
    return "ok", f"{python}, {len(wanted)} packages"


def _torch() -> Found:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of CUDA cannot be loaded
        return "fix", f"cannot be imported, {type(error).__name__}: install torch again"
    cuda = torch.version.cuda
    return "ok", f"{torch.__version__}, built for {f'CUDA {cuda}' if cuda else 'CPUs'}"


def _gpus() -> Found:
    count = gpus.count()
    try:
        import torch

        from eqco.runtime import device
    except (ImportError, OSError):
        return "note", "unknown, as torch cannot be imported"
    if torch.cuda.is_available():
        seen = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        names = Counter(f"{one.name} of {one.total_memory / 1e9:.0f} GB" for one in seen)
        listed = ", ".join(f"{number} × {name}" for name, number in names.items())
        return "ok", f"{listed}; {device.versions()}"
    if not count:
        return "note", "none: cells train on the CPU"
    seen_none = f"{count}, of which torch sees none: {device.versions()}"
    if os.environ.get("EQCO_DEVICE") == "cpu":
        return "note", f"{seen_none}; cells train on the CPU, as EQCO_DEVICE says"
    return "fix", f"{seen_none}; install a torch for it, or export EQCO_DEVICE=cpu"


def _cores() -> Found:
    limit = allocation.cores()
    if limit.amount < 1:
        return "note", f"{limit.amount:g}, by {limit.by}: the demo takes longer than a minute"
    return "ok", f"{limit.amount:g}, by {limit.by}"


def _memory() -> Found:
    limit = allocation.memory()
    found = f"{limit.amount / 1e9:,.1f} GB, by {limit.by}"
    cells = int(limit.amount / CELL_MEMORY) - 1
    if cells < 1:
        return "fix", f"{found}: the demo needs {2 * CELL_MEMORY / 1e9:g} GB"
    if cells < allocation.cores().amount:  # `cores: all` in profiles/default
        return "note", f"{found}: no cell on every core: snakemake --cores {cells}"
    return "ok", found


def _disk() -> Found:
    free = shutil.disk_usage(".").free
    found = f"{free / 1e9:,.1f} GB free on {_file_system()}"
    needs = f"the demo needs {DEMO_DISK / 1e9:g} GB"
    try:
        with tempfile.TemporaryFile(dir=".") as file:
            if hasattr(os, "posix_fallocate"):  # a quota shows when it is asked for; not on macOS
                os.posix_fallocate(file.fileno(), 0, int(DEMO_DISK))
    except OSError as error:
        return "fix", f"{found}, {error.strerror}: {needs}"
    return ("fix" if free < DEMO_DISK else "ok"), f"{found}; {needs}"


def _file_system() -> str:
    """The kind of the file system of this folder, such as ext4 or nfs4."""
    import psutil

    here = Path.cwd().resolve()
    mounts = [part for part in psutil.disk_partitions(all=True) if here.is_relative_to(part[1])]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "?"


def _flock() -> Found:
    without = "a grid's locks need it: a folder on another file system, or a mount with flock"
    try:
        with tempfile.TemporaryDirectory(dir=".", prefix=".eqco-doctor-") as folder:
            path = Path(folder, "lock")
            with hold(path, wait=False):
                once = is_held(path)
    except OSError as error:
        return "fix", f"no file of this folder can be locked, {error.strerror}: {without}"
    if not once:
        return "fix", f"a file of this folder can be locked twice: {without}"
    return "ok", "a file of this folder can be locked, once"


def _slurm() -> Found:
    if shutil.which("scontrol") is None:
        return "note", "none on PATH: a grid runs on this machine"
    from snakemake_executor_plugin_submitit.clusters import configuration  # brings Snakemake's

    try:
        values = configuration(SLURM_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "note", f"on PATH, but scontrol gives no answer, {type(error).__name__}"
    if "MaxArraySize" not in values:
        return "note", "on PATH, but no controller answers: a grid runs on this machine"
    names = ("SLURM_VERSION", "MaxArraySize", "MaxJobCount")
    found = ", ".join(f"{name} {values[name]}" for name in names if name in values)
    return "ok", found


def _dvc() -> Found:
    try:
        found = version("dvc")
    except PackageNotFoundError:
        return "note", "not installed; only versions of results need it: pip install dvc"
    if not Path(".dvc").is_dir():
        return "ok", f"{found}; this folder is not under DVC"
    command = [sys.executable, "-m", "dvc", "remote", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return "note", f"{found}, but its configuration cannot be read: dvc remote list"
    remotes, lacking = [], []
    for line in done.stdout.splitlines():
        name, url = line.split(maxsplit=1)
        scheme = match[1] if (match := re.match(r"(\w+)://", url)) else ""
        remotes.append(f"{name} ({scheme or 'a folder'})")
        plugin = scheme.removesuffix("s") if scheme == "webdavs" else scheme
        if scheme not in BUILT_IN and not find_spec(f"dvc_{plugin}"):
            lacking.append(f"pip install dvc-{plugin}")
    text = f"{found}, remotes: {', '.join(remotes) or 'none'}"
    return ("note", f"{text}: {', '.join(lacking)}") if lacking else ("ok", text)


def _project() -> Found:
    lacking = [name for name in ("Snakefile", "params/demo.yaml") if not Path(name).exists()]
    if lacking:
        return "fix", f"no {' and no '.join(lacking)} here: go to a project's root, or eqco new DIR"
    return "ok", "Snakefile and params/demo.yaml are here"


CHECKS: dict[str, Callable[[], Found]] = {
    "revision": _revision,
    "packages": _packages,
    "torch": _torch,
    "gpus": _gpus,
    "cores": _cores,
    "memory": _memory,
    "disk": _disk,
    "flock": _flock,
    "slurm": _slurm,
    "dvc": _dvc,
    "project": _project,
}
