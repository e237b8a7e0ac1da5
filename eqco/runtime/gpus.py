"""NVIDIA GPUs: count them, and claim one for this process."""

import os
import tempfile
import time
from itertools import takewhile
from pathlib import Path
from typing import IO

from eqco.runtime.lock import try_hold

NO_GPU = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES that hide all GPUs


def count() -> int:
    """The number of NVIDIA GPUs that a program started here may use, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        # CUDA stops reading at the first name that is no GPU
        return len(list(takewhile(lambda name: name not in NO_GPU, names)))
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


_claims: list[IO[str]] = []  # open lock files, held until this process ends


def claim(names: list[str], folder: Path | None = None) -> int:
    """Claim the first GPU that no other process has claimed; wait if all are claimed.

    The claim lasts until this process ends.

    Args:
        names: of the GPUs, the same in every process.
        folder: for the locks; by default one for this user in the machine's temporary files.

    Returns:
        The index of the GPU.
    """
    folder = folder or Path(tempfile.gettempdir(), f"eqco-gpus-{os.getuid()}")
    while True:
        for index, name in enumerate(names):
            if lock := try_hold(folder / name):
                _claims.append(lock)
                return index
        time.sleep(1)
