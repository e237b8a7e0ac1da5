"""Records of submitted jobs on disk, from which the next Snakemake learns of a dead one's jobs."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Record:
    """A submitted job: its id on the cluster, and a digest for each output (``digests.py``)."""

    cluster: str
    id: str
    outputs: dict[str, str]


class Records:
    """One file per job in a folder, from its submission until its end has been seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, record: Record) -> None:
        path = self._path(record.id)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(json.dumps(asdict(record)), encoding="utf-8")
        os.replace(temporary, path)

    def remove(self, id_: str) -> None:
        self._path(id_).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[Record]:
        for path in sorted(self.folder.glob("*.json")):
            # another Snakemake in this folder may have removed it
            with suppress(OSError, ValueError, TypeError):
                yield Record(**json.loads(path.read_text(encoding="utf-8")))

    def _path(self, id_: str) -> Path:
        return self.folder / f"{id_}.json"
