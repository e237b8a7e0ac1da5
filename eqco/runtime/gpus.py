"""A GPU for each process, where there are several."""

import os
import tempfile
import time
from itertools import takewhile
from pathlib import Path
from typing import IO

from eqco.runtime.lock import try_hold

NO_GPU = ("", "-1", "NoDevFiles")  # what SLURM and people write for it


def count() -> int:
    """NVIDIA GPUs that a program started here may use; without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        # as CUDA reads it: what follows a name that is none is not visible
        return len(list(takewhile(lambda name: name not in NO_GPU, names)))
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


_claims: list[IO[str]] = []  # until this process ends


def claim(names: list[str], folder: Path | None = None) -> int:
    """Take the first of several GPUs that no other process has claimed; wait where all are.

    Args:
        names: of the GPUs, the same in every process.
        folder: of the locks, by default the machine's temporary files of this user.

    Returns:
        Its index; it is this process's until the process ends.
    """
    folder = folder or Path(tempfile.gettempdir(), f"eqco-gpus-{os.getuid()}")
    while True:
        for index, name in enumerate(names):
            if held := try_hold(folder / name):
                _claims.append(held)
                return index
        time.sleep(1)
