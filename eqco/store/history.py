"""The history of a training while it runs: a line per epoch, for those who look on.

A checkpoint and ``pretrain.json`` hold the same entries; nothing resumes from this file.
"""

import json
from pathlib import Path
from typing import Any

from eqco.runtime.files import write

HISTORY = "history.jsonl"  # beside a cell's checkpoints, so of its configuration
Entries = list[dict[str, Any]]


def begin(path: Path, entries: Entries) -> None:
    """Write the epochs that are done already, in place of what an earlier process has written."""
    write(path, "".join(map(_line, entries)))


def append(path: Path, entry: dict[str, Any]) -> None:
    """Add the line of an epoch."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(_line(entry))
    except OSError as error:
        error.filename = error.filename or str(path)  # the error of a full disk names no file
        raise


def read(path: Path) -> Entries:
    """The epochs so far, without a last line that is not whole; none if nothing has run."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry) + "\n"
