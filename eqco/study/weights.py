"""The checkpoint that a training starts from: the place of its file, and its hash."""

from functools import cache
from pathlib import Path

from eqco.runtime.files import sha256


def find_weights(name: str) -> Path | None:
    """The file of ``network.weights``: in the working folder, or in the nearest above it.

    Snakemake's jobs run in results/<study>/ of a project, other commands in the project's folder.
    """
    folders = (Path(), *Path.cwd().parents)
    return next((path for folder in folders if (path := folder / name).is_file()), None)


def weights_hash(name: str) -> str | None:
    """Hex SHA-256 of the file of ``network.weights``; None if there is none."""
    if (path := find_weights(name)) is None:
        return None
    state = path.stat()
    return _hash(path.resolve(), state.st_mtime_ns, state.st_size)


@cache  # a grid asks for it once a cell
def _hash(path: Path, modified: int, size: int) -> str:
    return sha256(path)
