"""The cores and the memory that this process may use, in an allocation or a container."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil


class Limit(NamedTuple):
    """An amount, and who sets it."""

    amount: float
    by: str


def cores(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Limit:
    """The number of cores, which a control group's share may make a fraction.

    Args:
        groups: the mounted control groups, of version 1 or 2.
        own: the file that names this process's groups.
    """
    found = [Limit(os.cpu_count() or 1, "the machine")]
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        found.append(Limit(len(os.sched_getaffinity(0)), "this process's affinity"))
    for folder in _groups(groups, own, "cpu"):
        with suppress(OSError, ValueError):  # no limit: "max", or no such file
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
            found.append(Limit(int(quota) / int(period), "a control group"))
        with suppress(OSError):
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii")
                for name in ("quota", "period")
            )
            if int(quota) > 0:  # -1: none
                found.append(Limit(int(quota) / int(period), "a control group"))
    with suppress(KeyError, ValueError):
        found.append(Limit(int(os.environ["SLURM_CPUS_ON_NODE"]), "the SLURM job"))
    return min(found, key=lambda limit: limit.amount)


def memory(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Limit:
    """Bytes of memory, with the arguments of ``cores``."""
    found = [Limit(psutil.virtual_memory().total, "the machine")]
    for folder in _groups(groups, own, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):  # no limit: "max", or a number above the machine's
                text = (folder / name).read_text(encoding="ascii")
                found.append(Limit(int(text), "a control group"))
    with suppress(KeyError, ValueError):
        if megabytes := int(os.environ["SLURM_MEM_PER_NODE"]):  # 0: all of it
            found.append(Limit(megabytes * 2**20, "the SLURM job"))
    with suppress(KeyError, ValueError):
        per_cpu, cpus = (
            int(os.environ[f"SLURM_{name}"]) for name in ("MEM_PER_CPU", "CPUS_ON_NODE")
        )
        found.append(Limit(per_cpu * cpus * 2**20, "the SLURM job"))
    return min(found, key=lambda limit: limit.amount)


def _groups(groups: Path, own: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control group and of those above, each of which may limit it.

    In a container the group's path may be that outside; the folder of the whole is then its own.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = groups / controllers if controllers else groups
        if not top.is_dir():  # as cpu, a link to cpu,cpuacct, or the other way round
            top = groups / controller
        yield top
        for part in (Path(path), *Path(path).parents):
            yield top / str(part).lstrip("/")
