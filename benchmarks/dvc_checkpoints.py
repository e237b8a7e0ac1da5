"""Seconds of DVC's commands on many checkpoints.

Hashes the files, changes one, pushes, checks out and pulls. The files hold zeros after a header of
their own: DVC hashes and copies every byte all the same, but a disk may store them more cheaply
than weights. Prints one JSON line.
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks._measure import arguments, report


def main() -> None:
    parser = arguments(__doc__, n=1)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--megabytes", type=float, default=45)
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {}
    for _ in range(options.n):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            for name, value in run(Path(folder), options.files, options.megabytes).items():
                seconds.setdefault(name, []).append(value)
    report({"files": options.files, "megabytes": str(options.megabytes), "unit": "s"}, seconds)


def run(folder: Path, files: int, megabytes: float) -> dict[str, float]:
    """Seconds of each command, in a repository of its own."""
    work, store = folder / "work", folder / "store"
    for i in range(files):
        path = work / "cells" / f"seed~{i}" / "encoder.safetensors"
        path.parent.mkdir(parents=True)
        path.write_bytes(i.to_bytes(8, "big"))
        os.truncate(path, int(megabytes * 1e6))
    environment = {**os.environ, "DVC_SITE_CACHE_DIR": str(folder / "site")}

    def timed(*command: str) -> float:
        start = time.perf_counter()
        subprocess.run(command, cwd=work, env=environment, check=True, capture_output=True)
        return time.perf_counter() - start

    for command in (["git", "init"], ["dvc", "init"]):
        timed(*command)
    timed("dvc", "remote", "add", "-d", "store", str(store))
    seconds = {"first_add": timed("dvc", "add", "cells"), "status": timed("dvc", "status")}
    with path.open("r+b") as file:
        file.write(b"changed")
    seconds["add_after_one_change"] = timed("dvc", "add", "cells")
    seconds["push"] = timed("dvc", "push")
    shutil.rmtree(work / "cells")
    seconds["checkout"] = timed("dvc", "checkout")
    shutil.rmtree(work / "cells")
    shutil.rmtree(work / ".dvc" / "cache")
    return {**seconds, "pull": timed("dvc", "pull")}
