"""File locks that end with their owner."""

import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from eqco.errors import InputError


def try_hold(path: Path) -> IO[str] | None:
    """Take the lock on ``path`` if it is free.

    The lock ends when the file is closed, or when the process ends in whatever way. Between
    machines it holds if the network file system supports ``flock`` (NFS since Linux 2.6.12; Lustre
    if mounted with it).

    Returns:
        The open file, or None if another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return _sign(file)


@contextmanager
def hold(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock on ``path`` for the duration of the block; see ``try_hold``.

    Args:
        path: the lock's file, which holds the owner's name.
        wait: if another process holds the lock, wait for it; otherwise raise.

    Raises:
        InputError: if another process holds the lock and ``wait`` is false.
    """
    file = try_hold(path)
    if file is None:
        file = path.open("a+", encoding="utf-8")
        file.seek(0)
        owner = file.read().strip() or "another process"
        if not wait:
            file.close()
            raise InputError(f"{path}: is held by {owner}; wait for it, or stop it")
        print(f"{path}: waiting for {owner}", file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
        _sign(file)
    with file:
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds the lock on the file ``path``, as far as ``flock`` tells here.

    Takes a shared lock for a moment to find out. A process that asks for the lock at that moment
    has to try again.
    """
    with path.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _sign(file: IO[str]) -> IO[str]:
    """Write the owner's name into the file, for processes that find the lock held."""
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file
