"""Files appear whole or not at all."""

import hashlib
import os
from pathlib import Path


def write(path: Path, content: bytes | str) -> None:
    """Write ``content`` to ``path``: at any moment it is absent, the old file or the new one.

    Written to a temporary file beside it, flushed to the disk, renamed; on failure the temporary
    file is removed and OSError raised.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk's names none
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
