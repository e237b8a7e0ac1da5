"""Submission of jobs as arrays: when, how many at once, and what after an error."""

import os
import re
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from submitit import AutoExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from snakemake_executor_plugin_submitit.clusters import Cluster, cancel_others, why
from snakemake_executor_plugin_submitit.command import RunCommand
from snakemake_executor_plugin_submitit.runs import Record, Run, array_of
from snakemake_executor_plugin_submitit.sbatch import Sbatch

BATCH_SECONDS = 60  # a job waits for others to share its array, at most
SHARE = 20  # of the jobs on the cluster: as many are ready before the next array
RETRY_SECONDS = (5, 10, 20, 40, 80, 160, 300)  # between tries; the last again and again
GIVE_UP_SECONDS = 1800
LIMIT_SECONDS = 30  # between tries at a limit: other jobs have to end
# sbatch's errors after which another try may go well; after some the jobs may be there
TRANSIENT = re.compile(
    r"Unable to contact slurm controller|Socket timed out|Zero Bytes|temporarily unable"
    r"|Connection (refused|reset|timed out)|Communication connection failure|not connected"
    r"|Unexpected message|Cannot allocate memory|database is busy",
    re.I,
)
# sbatch's errors about a number of jobs, of this user or of all
LIMIT = re.compile(r"MaxSubmitJob|max_job_cnt|Resource temporarily unavailable", re.I)


class Wait(Exception):
    """The jobs are to be submitted later."""


class Refused(Exception):
    """The jobs cannot be submitted; the reason in one line."""


@dataclass
class Submission:
    """Submits a run's jobs.

    Attributes:
        run: the run.
        cluster: its cluster.
        array_size: maximum number of jobs in an array, if SLURM's is not smaller.
        parallelism: maximum number of jobs of an array that run at once.
        signal_seconds: before its time limit, when a job is told to save its state.
        requeues: maximum number of requeues of a job.
        excluded: nodes that were lost.
    """

    run: Run
    cluster: Cluster
    array_size: int
    parallelism: int
    signal_seconds: int
    requeues: int
    excluded: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.at_most = self.array_size  # halved at a limit, doubled after a success
        self.not_before = 0.0
        self.waiting_since: float | None = None
        self.failing_since: float | None = None
        self.tries = 0
        self.unsure: set[str] = set()  # names of jobs that may be there although sbatch failed

    @property
    def size(self) -> int:
        """The number of jobs that the next array may have."""
        return int(min(self.at_most, self.cluster.array_size))

    def submitter(self) -> AutoExecutor:
        """submitit's; a new one for each array, since parameters accumulate.

        Raises:
            OSError, RuntimeError: there is no such cluster here.
        """
        # RunCommand counts requeues
        submitter = AutoExecutor(
            self.run.folder, cluster=self.run.cluster, local_max_num_timeout=10**6
        )
        if self.run.cluster == "slurm":
            submitter._executor = Sbatch(self.run.folder, self.requeues)
        return submitter

    def is_due(self, waiting: int, running: int) -> bool:
        """Whether to submit: jobs that are ready soon after each other share an array.

        Args:
            waiting: number of jobs that are ready, and that the cluster may have.
            running: number of jobs on the cluster.
        """
        now = time.monotonic()
        if not waiting:
            self.waiting_since = None
            return False
        if self.waiting_since is None:
            self.waiting_since = now
        if now < self.not_before:
            return False
        enough = waiting >= min(self.size, running / SHARE)
        return enough or now - self.waiting_since >= BATCH_SECONDS

    def submit(
        self,
        commands: Sequence[RunCommand],
        outputs: Sequence[dict[str, str]],
        resources: dict[str, Any],
        comment: str,
    ) -> tuple[str, list[str]]:
        """Submit an array.

        Args:
            commands: one for each job; at most ``size`` of them.
            outputs: of each job, with their digests.
            resources: submitit's parameters.
            comment: for people that look at the queue.

        Returns:
            The jobs' name on the cluster and their ids.

        Raises:
            Wait: the scheduler does not answer, or has as many jobs as it takes.
            Refused: it never will.
        """
        name = self.run.name(resources["name"])
        self._make_sure(name)
        parameters = {
            **resources,
            "name": name,
            "slurm_comment": comment,
            "slurm_array_parallelism": self.parallelism,
            "slurm_signal_delay_s": self.signal_seconds,
        }
        if self.excluded:
            parameters["slurm_exclude"] = ",".join(sorted(self.excluded))
        submitter = self.submitter()
        try:
            submitter.update_parameters(**parameters)
            jobs = submitter.submit_array(list(commands))
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            self._tidy()
            raise self._after(error, name, len(commands)) from None
        except (ValueError, RuntimeError, AssertionError, NameError) as error:
            self._tidy()
            raise Refused(_line(str(error))) from None
        self._tidy()
        self.tries, self.failing_since, self.waiting_since = 0, None, None
        self.at_most = min(2 * self.at_most, self.array_size)
        ids = [job.job_id for job in jobs]
        try:
            self.run.add(Record(name, dict(zip(ids, outputs, strict=True))))
        except OSError as error:  # a full disk: the next Snakemake would not know of them
            with suppress(OSError, subprocess.SubprocessError):
                self.cluster.cancel(sorted(set(map(array_of, ids))), name)
            raise Refused(f"its record cannot be written: {error.strerror}") from None
        return name, ids

    def _make_sure(self, name: str) -> None:
        """Cancel what an sbatch has submitted whose answer never came: nobody waits for it."""
        if name not in self.unsure:
            return
        try:
            cancel_others(self.cluster, name, self.run.unfinished.keys())
        except (OSError, subprocess.SubprocessError) as error:
            raise self._later(f"what came of the last try: {why(error)}") from None
        self.unsure.discard(name)

    def _after(self, error: Exception, name: str, count: int) -> Exception:
        """The exception to raise after an error of sbatch."""
        told = _line(str(error))
        if LIMIT.search(str(error)) and not isinstance(error, OSError):
            self.at_most = max(1, count // 2)
            self.not_before = time.monotonic() + (LIMIT_SECONDS if count == 1 else 0)
            return Wait(f"{told}: jobs wait for others to end")
        # whoever was submitted by an unknown id is found by name
        if TRANSIENT.search(str(error)) or isinstance(error, (OSError, FailedSubmissionError)):
            self.unsure.add(name)
            return self._later(told)
        return Refused(told)

    def _later(self, told: str) -> Exception:
        now = time.monotonic()
        self.failing_since = self.failing_since or now
        if now - self.failing_since >= GIVE_UP_SECONDS:
            return Refused(told)
        seconds = RETRY_SECONDS[min(self.tries, len(RETRY_SECONDS) - 1)]
        self.tries += 1
        self.not_before = now + seconds
        return Wait(f"{told}; again in {seconds} s")

    def _tidy(self) -> None:
        """Delete what submitit leaves beside the jobs' own files."""
        for path in os.scandir(self.run.folder):
            if path.name.startswith(".submission_file_") or re.fullmatch(
                r"[0-9a-f]{32}\.pkl", path.name
            ):
                os.unlink(path)


def _line(message: str) -> str:
    """The reason in submitit's message about a failed sbatch."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("sbatch: error:")]
    return " ".join(errors) or (lines[-1] if lines else "")
