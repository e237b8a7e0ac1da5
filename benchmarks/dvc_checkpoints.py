"""What DVC takes for many checkpoints: hashing, a change of one, push, checkout; in seconds.

The files hold zeros after a header of their own: DVC hashes and copies every byte all the same, but
a disk may store them more cheaply than weights.

    python benchmarks/dvc_checkpoints.py --files 100 --megabytes 45
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--megabytes", type=float, default=45)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name, "work")
        for i in range(arguments.files):
            path = folder / "cells" / f"seed~{i}" / "encoder.safetensors"
            path.parent.mkdir(parents=True)
            path.write_bytes(i.to_bytes(8, "big"))
            os.truncate(path, int(arguments.megabytes * 1e6))
        environment = {**os.environ, "DVC_SITE_CACHE_DIR": f"{name}/site"}

        def timed(what: str, *command: str) -> None:
            start = time.perf_counter()
            subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
            print(f"{what}: {time.perf_counter() - start:.1f} s", flush=True)

        print(f"{arguments.files} files of {arguments.megabytes:g} MB")
        timed("git init", "git", "init")
        timed("dvc init", "dvc", "init")
        timed("remote", "dvc", "remote", "add", "-d", "store", f"{name}/store")
        timed("first add: hash and copy to the cache", "dvc", "add", "cells")
        timed("status, nothing changed", "dvc", "status")
        with path.open("r+b") as file:
            file.write(b"changed")
        timed("add after a change of one file", "dvc", "add", "cells")
        timed("push to a folder on the same disk", "dvc", "push")
        shutil.rmtree(folder / "cells")
        timed("checkout", "dvc", "checkout")
        shutil.rmtree(folder / "cells")
        shutil.rmtree(folder / ".dvc" / "cache")
        timed("pull", "dvc", "pull")


if __name__ == "__main__":
    main()
