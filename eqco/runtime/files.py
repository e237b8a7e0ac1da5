"""Write files atomically, and hash them."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def canonical(values: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def write(path: Path, content: bytes | str) -> None:
    """Write ``content`` to ``path`` atomically: a reader sees the old file or the new one.

    The content goes to a temporary file beside it, which is flushed to the disk and renamed. The
    folder is flushed too, so that the guarantee survives a power cut.

    Raises:
        OSError: if it cannot be written; the temporary file is removed.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        flush(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # the error of a full disk names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, each flushed to the disk."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        flush(folder.parent)


def flush(folder: Path) -> None:
    """Flush the names in a folder to the disk; the flush of a file leaves out its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
