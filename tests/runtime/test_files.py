"""Files appear whole or not at all."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eqco.runtime import files


def test_write_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "file.txt"
    files.write(path, "first")
    files.write(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    """The limit on a file's size stands for a full disk: the write itself fails, half-way."""
    path = tmp_path / "file"
    path.write_text("old")
    code = (
        "import pathlib, resource, sys; from eqco.runtime import files\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "files.write(pathlib.Path(sys.argv[1]), b'x' * 100_000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert "OSError: [Errno 27] File too large" in done.stderr
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_power_cut_leaves_the_new_file(tmp_path, monkeypatch):
    """The file is flushed before it has its name, and after it every folder that got a new one."""
    told = []
    fsync, replace = os.fsync, Path.replace

    def flushed(descriptor: int) -> None:
        told.append(("flush", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        told.append(("rename", str(target)))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    path = tmp_path / "new" / "folder" / "file"
    files.write(path, "x")
    assert told[:2] == [("flush", str(tmp_path)), ("flush", str(tmp_path / "new"))]
    temporary, rename, folder = told[2:]
    assert temporary[0] == "flush"
    assert Path(temporary[1]).parent == path.parent
    assert rename == ("rename", str(path))
    assert folder == ("flush", str(path.parent))


def test_write_below_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        files.write(tmp_path / "file" / "below", "")


def test_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert files.sha256(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()
