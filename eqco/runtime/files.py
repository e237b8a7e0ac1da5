"""Files appear whole or not at all."""

import hashlib
import os
from pathlib import Path


def write(path: Path, content: bytes | str) -> None:
    """Write ``content`` to ``path``: at any moment it is absent, the old file or the new one.

    Written to a temporary file beside it, flushed to the disk, renamed, and the folder flushed, so
    that a power cut leaves one of them too; on failure the temporary file is removed and OSError
    raised.
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
        error.filename = error.filename or str(path)  # a full disk's names none
        raise
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, each flushed to the disk."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        flush(folder.parent)


def flush(folder: Path) -> None:
    """Write the names in a folder to the disk: a file's own flush leaves out its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
