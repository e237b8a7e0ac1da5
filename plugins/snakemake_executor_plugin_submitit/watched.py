"""A job on the cluster that is waited for, and how it ends: by its own word, else by the state."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit import Job
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

    def ask(self, requeues: int) -> None:
        """Look for what it says of its end itself.

        Args:
            requeues: those after which it gives up.
        """
        try:
            outcome, value = pickle_load(JobPaths(self.folder, self.id).result_pickle)
            self.ending = ending(outcome, value, requeues)
        except (OSError, EOFError):
            pass  # it is not there yet
        except Exception as error:  # unpickling raises whatever the bytes lead it to
            why = " ".join(f"{type(error).__name__}: {error}".split())
            self.ending = f"left a result that cannot be read: {why}"

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


def ending(outcome: str, value: Any, requeues: int) -> str:
    """A job's end as its result tells it: ("success", Outcome) or ("error", traceback)."""
    if outcome == "success":
        if value.code != 0 and value.out_of_memory:
            return str(State("OUT_OF_MEMORY"))
        return f"failed with exit code {value.code}" if value.code != 0 else ""
    if "Job not requeued" in value:
        return f"was stopped again after {requeues} requeues"
    return f"could not be run: {value.splitlines()[-1]}"
