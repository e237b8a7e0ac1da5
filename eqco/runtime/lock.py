"""Locks that die with their owner."""

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
    """Take the lock on ``path``: its open file, or None when another process holds it.

    The lock ends when the file is closed, or its process ends, however it ends. On a network file
    system it holds between machines where ``flock`` does (NFS since Linux 2.6.12; Lustre mounted
    with it).
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
    """Hold the lock on ``path`` for the length of the block, as ``try_hold`` does.

    Args:
        path: of the lock's file; holds the owner's name.
        wait: for another owner to end, or raise.

    Raises:
        InputError: when another process holds it and ``wait`` is false.
    """
    file = try_hold(path)
    if file is None:
        file = path.open("a+", encoding="utf-8")
        file.seek(0)
        owner = file.read().strip() or "another process"
        if not wait:
            file.close()
            raise InputError(f"{path}: is held by {owner}; wait for it, or stop it")
        print(f"eqco: {path}: waiting for {owner}", file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
        _sign(file)
    with file:
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds the lock on ``path``, a file, as far as ``flock`` tells here.

    It is asked for a moment with a shared lock: an owner who comes in it waits, if it waits at all.
    """
    with path.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def owner_is_here(path: Path) -> bool:
    """Whether the last owner of the lock on ``path`` was a process of this machine."""
    return path.read_text(encoding="utf-8").strip().endswith(f" on {socket.gethostname()}")


def _sign(file: IO[str]) -> IO[str]:
    """Write the owner's name, for whoever finds the lock held."""
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file
