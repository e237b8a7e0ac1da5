"""Programs for tests without the wait for imports: forks of a process that has them imported.

Used as a script it is that process. ``snakemake`` and ``dvc`` are written to a folder for PATH.
"""

import os
import shutil
import socket
import sys
from importlib import import_module
from pathlib import Path

from eqco import forkserver

PROGRAMS = {"snakemake": "snakemake.cli", "dvc": "dvc.cli"}
CLIENT = f"""#!{sys.executable}
import sys
from eqco.forkserver import call
sys.exit(call([{{name!r}}, *sys.argv[1:]], {{address!r}}))
"""


def start() -> Path:
    """Start the process, which ends with this one; return the folder of the programs."""
    address = forkserver.launch([__file__])
    folder = Path(address).parent
    for name in PROGRAMS:
        (folder / name).write_text(CLIENT.format(name=name, address=address))
        (folder / name).chmod(0o755)
    return folder


def main() -> None:
    """Run the program that the first argument names, as its own process would."""
    _, name, *arguments = sys.argv
    sys.argv = [name, *arguments]
    # the copy of the project that the caller names
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    for module in [name for name in sys.modules if name.split(".")[0] == "eqco"]:
        del sys.modules[module]
    sys.exit(import_module(PROGRAMS[name]).main())


def serve(descriptor: str, parent: str, folder: str) -> None:
    try:
        for module in (*PROGRAMS.values(), "pandas", "dvc.repo", "snakemake.dag", "pydantic"):
            import_module(module)
        forkserver.serve(socket.socket(fileno=int(descriptor)), int(parent), main)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.path.pop(0)  # this folder
    serve(*sys.argv[1:])
