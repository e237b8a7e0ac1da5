"""A job on the cluster until its end is known, from its result or from the scheduler's state."""

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
        folder: submitit's folder, for results and logs.
        job: submitit's job; None if an earlier Snakemake submitted it.
        alive: whether the scheduler has reported it as queued or running.
        stale: whether it was cancelled because its dependencies have changed.
        ending: the rest of a sentence that begins with the job; empty after success; None before
            the end.
        missed: when its result was first looked for in vain, by the monotonic clock.
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
        """Whether its end is meaningless for the outputs: it was stale, or had died long before."""
        return self.stale or (bool(self.ending) and self.job is None and not self.alive)

    def ask(self, requeues: int) -> None:
        """Read the job's own result, if there is one.

        Args:
            requeues: the maximum number, for the message.
        """
        try:
            outcome, value = pickle_load(JobPaths(self.folder, self.id).result_pickle)
            self.ending = ending(outcome, value, requeues)
        except (OSError, EOFError):
            pass  # there is none yet
        except Exception as error:  # unpickling damaged bytes can raise anything
            why = " ".join(f"{type(error).__name__}: {error}".split())
            self.ending = f"left a result that cannot be read: {why}"

    def hear(self, state: State | None, patience: float) -> None:
        """Record the scheduler's state of a job without a result.

        Args:
            state: the state; None if the scheduler does not know the job.
            patience: seconds that a result may take to appear through a network file system.
        """
        if state is not None and state.active:
            self.alive, self.missed = True, None
            return
        if state is None or state.name == "PREEMPTED":
            patience += 30  # it may be requeued
        if self.missed is None:
            self.missed = time.monotonic()
        if self.stale or time.monotonic() - self.missed >= patience:
            self.ending = str(state or "is no longer known to the scheduler")


def ending(outcome: str, value: Any, requeues: int) -> str:
    """The ending in a job's result: ("success", Outcome) or ("error", traceback)."""
    if outcome == "success":
        if value.code != 0 and value.out_of_memory:
            return str(State("OUT_OF_MEMORY"))
        return f"failed with exit code {value.code}" if value.code != 0 else ""
    if "Job not requeued" in value:
        return f"was stopped again after {requeues} requeues"
    return f"could not be run: {value.splitlines()[-1]}"
