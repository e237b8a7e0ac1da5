"""A job on the cluster that is waited for, and how it ends: by its own word, else by the state."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit import DebugJob, Job
from submitit.core.utils import JobPaths, pickle_load

from snakemake_executor_plugin_submitit.clusters import State
from snakemake_executor_plugin_submitit.command import Outcome


@dataclass
class Watched:
    """A job on the cluster, until its end is known.

    Attributes:
        id: on the cluster.
        folder: submitit's, where it leaves its result and its log.
        job: submitit's, of a job of this Snakemake; None of one that is gone.
        alive: whether the scheduler has known it as one that waits or runs.
        stale: whether it was cancelled, for it makes something else than is wanted now.
        ending: how it ended, as the rest of a sentence that begins with the job; empty if well.
        missed: when its result was first missed.
    """

    id: str
    folder: Path
    job: Job[Outcome] | None = None
    alive: bool = False
    stale: bool = False
    ending: str | None = None
    missed: float | None = None

    @property
    def log(self) -> Path:
        return JobPaths(self.folder, self.id).stdout

    @property
    def is_void(self) -> bool:
        """Whether its end tells nothing of what is wanted: it was stale, or dead long before."""
        return self.stale or (bool(self.ending) and self.job is None and not self.alive)

    def result(self) -> tuple[str, Any] | None:
        """What it has left: submitit's ("success", Outcome) or ("error", traceback), or None."""
        if isinstance(self.job, DebugJob):
            return "success", self.job.results()[0]
        try:
            return pickle_load(JobPaths(self.folder, self.id).result_pickle)
        except (OSError, EOFError):
            return None

    def hear(self, state: State | None, patience: float) -> None:
        """Take in what the scheduler says; None: it does not know the job.

        Args:
            state: the scheduler's word on a job that has left no result.
            patience: seconds that a result may take on its way through the file system.
        """
        if state is not None and state.active:
            self.alive, self.missed = True, None
            return
        if state is None or state.name == "PREEMPTED":
            patience += 30  # it may be requeued
        if self.missed is None:
            self.missed = time.monotonic()
        if self.stale or time.monotonic() - self.missed >= patience:
            self.ending = str(state or "is not known to the scheduler any more")
