"""Programs for tests without the wait for imports: forks of a process that has them imported.

Used as a script it is that process. ``snakemake`` and ``dvc`` are written to a folder for PATH.
eqco's own fork server has the report's imports here too, and the bundle of its JavaScript.
"""

import os
import shutil
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from eqco import forkserver

PROGRAMS = {"snakemake": "snakemake.cli", "dvc": "dvc.cli"}
CLIENT = f"""#!{sys.executable}
import sys
from eqco.forkclient import call
sys.exit(call([{{name!r}}, *sys.argv[1:]], {{address!r}}))
"""


def start_eqco() -> str:
    """Start eqco's fork server; return its address."""
    return forkserver.launch([__file__, "eqco"])


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


def serve_eqco(*arguments: str) -> None:
    from eqco.report import figures, page  # noqa: F401

    # a process of its own makes it: the threads that do would not be in a fork
    command = "from eqco.report.page import vega; print(vega())"
    bundle = subprocess.check_output([sys.executable, "-c", command], text=True).removesuffix("\n")
    page.vega = lambda: bundle
    forkserver.serve_commands(*arguments)


if __name__ == "__main__":
    sys.path.pop(0)  # this folder
    if sys.argv[1] == "eqco":
        serve_eqco(*sys.argv[2:])
    else:
        serve(*sys.argv[1:])
