"""The provenance of a number: revision, versions, hardware."""

import os
import platform
import resource
import statistics
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqco import __version__
from eqco.runtime.files import canonical
from eqco.runtime.git import git
from eqco.study.study import Study

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "torchvision", "timm", "numpy", "snakemake")


def provenance(device: "torch.device") -> dict[str, Any]:
    """The provenance of a result: ``revision``, ``versions``, ``hardware``, ``threads``."""
    import torch

    gpu = device.type == "cuda"
    # an editable installation's metadata are of the day when it was installed
    versions = {"eqco": __version__}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # a GPU's machine may have no Snakemake
            versions[name] = version(name)
    return {
        "revision": revision(),
        "versions": {
            "python": platform.python_version(),
            **versions,
            **(gpu_versions() if gpu else {}),
        },
        "hardware": torch.cuda.get_device_name(device) if gpu else processor(),
        "threads": torch.get_num_threads(),
    }


def peak_memory(device: "torch.device") -> dict[str, float | None]:
    """The most memory that this process held so far, in MB: ``host``, and ``device`` if a GPU."""
    import torch

    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB, macOS in bytes
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {"host": round(host / 1e6, 1), "device": None if gpu is None else round(gpu / 1e6, 1)}


def gpu_versions() -> dict[str, str | None]:
    """The versions of CUDA and cuDNN that torch brings, and of the machine's NVIDIA driver."""
    import torch

    driver = Path("/sys/module/nvidia/version")
    return {
        "cuda": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version()),
        "driver": driver.read_text().strip() if driver.exists() else None,
    }


def revision() -> str:
    """``git describe`` of the source tree, ``-dirty`` if it has changes outside of results/.

    A new table in results/ does not change the code that makes the next one. An installed wheel
    has the revision that it was built from; "" if neither is known.
    """
    folder = Path(__file__).parent
    built_from = folder.parent / "REVISION"  # hatch_build.py
    if built_from.exists():
        return built_from.read_text(encoding="utf-8").strip()
    # an installed copy may lie within another project's repository
    own = git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
    if not own:
        return ""
    changed = git(folder, "diff", "--name-only", "HEAD", "--", ":/", ":(top,exclude)results")
    return git(folder, "describe", "--always", "--abbrev=12") + "-dirty" * bool(changed)


def processor() -> str:
    """The processor's model and the number of cores, as the system names them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores"


def gather(study: Study, summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """The provenance of a table: study, dataset, and the makers of its cells.

    Args:
        study: the study.
        summaries: ``pretrain.json`` of every cell; cells of equal provenance are counted together.
    """
    makers: dict[str, dict[str, Any]] = {}
    for summary in summaries:
        made_by = summary["provenance"]
        makers.setdefault(canonical(made_by), {**made_by, "cells": 0})["cells"] += 1
    seconds = [summary["seconds"] for summary in summaries]
    return {
        "study": study.study,
        "cells": len(summaries),
        "made_by": list(makers.values()),
        "dataset": {
            "name": study.data.name,
            "sha256": sorted({summary["dataset"] for summary in summaries}),
        },
        "pretrain": {
            "wall_time_s": round(sum(seconds), 1),
            "median_wall_time_s": round(statistics.median(seconds), 1),
            "median_images_per_s": statistics.median(s["images_per_s"] for s in summaries),
            "peak_memory_mb": {
                place: max((s["peak_memory_mb"][place] or 0.0 for s in summaries), default=0.0)
                for place in ("host", "device")
            },
        },
        "parameters": study.model_dump(mode="json"),
    }
