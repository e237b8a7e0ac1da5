"""Folders of runs: what each Snakemake has submitted, for the next one if it dies."""

import json
import os
import shutil
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

RUN = "run.json"


@dataclass(frozen=True)
class Record:
    """An array, or a single job, that was submitted.

    Attributes:
        name: on the cluster; no other run's jobs have it.
        outputs: of each job, by its id on the cluster, each with its digest (``digests.py``).
    """

    name: str
    outputs: dict[str, dict[str, str]]


@dataclass
class Run:
    """The folder of one Snakemake: its jobs' commands, logs and results, and records of them.

    Nothing in it is shared with another run: the numbers of jobs begin again on a new cluster.

    Attributes:
        folder: its name is the run's own, of 8 hexadecimal digits.
        cluster: slurm or local.
        where: the cluster's own name, or the machine's.
        started: seconds since the epoch.
        names: of its jobs on the cluster.
        unfinished: the ids of jobs whose end nobody has seen, by the id of their array.
    """

    folder: Path
    cluster: str
    where: str = ""
    started: float = field(default_factory=time.time)
    names: list[str] = field(default_factory=list)
    unfinished: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def start(cls, parent: Path, cluster: str) -> "Run":
        parent.mkdir(parents=True, exist_ok=True)
        run = cls(parent / uuid.uuid4().hex[:8], cluster)
        run.folder.mkdir(mode=0o700)  # jobs unpickle what is in it
        run._write()
        return run

    @classmethod
    def read(cls, folder: Path) -> "Run | None":
        """The run of a folder; None if there is none."""
        try:
            values = json.loads((folder / RUN).read_text(encoding="utf-8"))
            run = cls(folder, **values)
        except (OSError, ValueError, TypeError):
            return None
        run.unfinished = {array: set(one.outputs) for array, one in run.records().items()}
        return run

    def settle(self, where: str) -> None:
        """Write down where its jobs are; nothing may be submitted before."""
        self.where = where
        self._write()

    def name(self, rule: str) -> str:
        """The name on the cluster of jobs of a rule or group; it is on disk before they are."""
        name = f"{rule}-{self.folder.name}"
        if name not in self.names:
            self.names.append(name)
            self._write()
        return name

    def add(self, record: Record) -> None:
        array = array_of(next(iter(record.outputs)))
        write(self.folder / f"{array}.json", asdict(record))
        self.unfinished[array] = set(record.outputs)

    def end(self, id_: str) -> None:
        """A job has ended; with the last of an array its record and sbatch's script go."""
        array = array_of(id_)
        if jobs := self.unfinished.get(array):
            jobs.discard(id_)
        if not jobs and self.unfinished.pop(array, None) is not None:
            for name in (f"{array}.json", f"{array}_submission.sh"):
                (self.folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Delete the folder if it holds nothing more: no job that may be alive, no log."""
        if [path.name for path in self.folder.iterdir()] == [RUN]:
            shutil.rmtree(self.folder)
        elif self.names and not self.unfinished:
            self.names = []  # nothing by them is left to be looked for
            self._write()

    def records(self) -> dict[str, Record]:
        """The records by the ids of their arrays, the latest last."""
        found = {}
        for path in sorted(self.folder.glob("[0-9]*.json"), key=_by_number):
            if path.stem.isdecimal():
                # another Snakemake in this folder may have removed it
                with suppress(OSError, ValueError, TypeError):
                    found[path.stem] = Record(**json.loads(path.read_text(encoding="utf-8")))
        return found

    def _write(self) -> None:
        facts = ("cluster", "where", "started", "names")
        write(self.folder / RUN, {name: getattr(self, name) for name in facts})


def write(path: Path, value: object) -> None:
    """Write JSON that is whole or not there."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())  # or it may be a name without bytes if power is lost
    os.replace(temporary, path)


def array_of(id_: str) -> str:
    """The id of a job's array: 123 of 123_7, and of 123."""
    return id_.split("_")[0]


def earlier_runs(parent: Path, but: Run) -> list[Run]:
    """The runs before this one, the latest last."""
    folders = (path for path in parent.iterdir() if path.is_dir() and path != but.folder)
    runs = [run for folder in folders if (run := Run.read(folder))]
    return sorted(runs, key=lambda run: run.started)


def _by_number(path: Path) -> tuple[int, str]:
    return len(path.stem), path.stem
