"""A job on the cluster until its end is known, from its outcome or from the scheduler's state."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from submitit.core.utils import JobPaths

from snakemake_executor_plugin_submitit.clusters import State
from snakemake_executor_plugin_submitit.command import Outcome, outcome_file, read_outcome

PREEMPTED_SECONDS = 30  # for which a job may be out before it is queued again


@dataclass
class Watched:
    """A job on the cluster, until its end is known.

    Attributes:
        id: on the cluster.
        name: on the cluster; no other run's jobs have it.
        folder: of its run, for outcomes and logs.
        adopted: whether an earlier Snakemake submitted it.
        alive: whether the scheduler has reported it as queued or running.
        stale: whether it was cancelled because its dependencies have changed.
        ending: the rest of a sentence that begins with the job; empty after success; None before
            the end.
        outcome: its own word on its end.
        state: the scheduler's last word; None if it has said nothing.
        missed: when its outcome was first looked for in vain, by the monotonic clock.
    """

    id: str
    name: str
    folder: Path
    adopted: bool = False
    alive: bool = False
    stale: bool = False
    ending: str | None = None
    outcome: Outcome | None = None
    state: State | None = None
    missed: float | None = None

    @property
    def log(self) -> Path:
        return JobPaths(self.folder, self.id).stdout

    @property
    def files(self) -> list[Path]:
        """All that submitit and the job leave; to list the folder would cost more and more."""
        paths = JobPaths(self.folder, self.id)
        pickles = (paths.submitted_pickle, paths.result_pickle)
        return [*pickles, paths.stdout, outcome_file(self.folder, self.id)]

    @property
    def is_void(self) -> bool:
        """Whether its end is meaningless for the outputs: it was stale, or had died long before."""
        return self.stale or (bool(self.ending) and self.adopted and not self.alive)

    @property
    def may_run(self) -> bool:
        """Whether neither the job nor the scheduler has said that it has ended."""
        return self.outcome is None and (self.state is None or self.state.active)

    def ask(self, requeues: int) -> None:
        """Read the job's own outcome, if there is one.

        Args:
            requeues: the maximum number, for the message.
        """
        try:
            outcome = read_outcome(outcome_file(self.folder, self.id))
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError) as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            self.ending = f"left a result that cannot be read: {why}"
            return
        self.outcome = outcome
        if outcome.code is None:
            self.ending = f"was stopped again after {requeues} requeues"
        elif outcome.code == 0:
            self.ending = ""
        elif outcome.out_of_memory:
            self.ending = str(State("OUT_OF_MEMORY"))
        else:
            self.ending = f"failed with exit code {outcome.code}"

    def hear(self, state: State | None, latency: float, patience: float) -> None:
        """Record the scheduler's state of a job that has left no outcome yet.

        Args:
            state: the state; None if the scheduler does not know the job.
            latency: seconds that an outcome may take to appear through a network file system.
            patience: seconds for which a job may be unknown.
        """
        self.state = state
        if state is not None and state.active:
            self.alive, self.missed = True, None
            return
        if state is not None and state.name == "COMPLETED":
            self.ending = ""  # a job's exit code is its command's: the outcome may come later
            return
        if self.missed is None:
            self.missed = time.monotonic()
        if state is None:
            seconds = patience
        else:
            seconds = latency + PREEMPTED_SECONDS * (state.name == "PREEMPTED")
        if self.stale or time.monotonic() - self.missed >= seconds:
            self.ending = str(state or "is no longer known to the scheduler")


def by_name(jobs: Iterable[Watched]) -> dict[str, list[Watched]]:
    """Jobs by their names on the cluster: one call cancels all of a name."""
    names: dict[str, list[Watched]] = {}
    for job in jobs:
        names.setdefault(job.name, []).append(job)
    return names
