"""submitit's clusters: the states of their jobs, by one query for all, and cancellation."""

import re
import signal
import subprocess
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import psutil
from submitit.slurm.slurm import SlurmInfoWatcher

# the states of a job that has ended: a newer SLURM may have more for one that has not
ENDINGS = {
    "BOOT_FAIL": "was given a node that did not start",
    "CANCELLED": "was cancelled",
    "COMPLETED": "ended without leaving a result",
    "DEADLINE": "missed its deadline",
    "FAILED": "died without an error message",
    "NODE_FAIL": "lost its node",
    "OUT_OF_MEMORY": "ran out of memory (resource mem_mb)",
    "PREEMPTED": "was preempted and is not requeued",
    "TIMEOUT": "ran out of time (resource runtime)",
}
# reasons for which a pending job waits until somebody acts
STUCK = re.compile(r"held|JobHold|JobHeld|Never|BadConstraints|InvalidQOS|InvalidAccount", re.I)
FIELDS = "JobID,State,Reason,NodeList"


@dataclass(frozen=True)
class State:
    """The state of a job, as the scheduler reports it."""

    name: str
    reason: str = ""
    node: str = ""

    @property
    def active(self) -> bool:
        return self.name not in ENDINGS

    @property
    def stuck(self) -> bool:
        return self.name in ("PENDING", "SPECIAL_EXIT") and bool(STUCK.search(self.reason))

    def __str__(self) -> str:
        """The ending, as the rest of a sentence that begins with the job."""
        node = f" on {self.node}" if self.node not in ("", "None assigned") else ""
        return ENDINGS.get(self.name, f"ended as {self.name}") + node


class Cluster(Protocol):
    """A cluster, which runs jobs."""

    def states(self, ids: Collection[str]) -> dict[str, State] | None:
        """The states of the jobs that the scheduler knows; None if it does not answer."""

    def cancel(self, ids: Collection[str]) -> None:
        """Cancel queued and running jobs; raises OSError or SubprocessError if that fails."""


class Slurm:
    """SLURM: ``sacct`` if accounting is on, else ``squeue``, which soon forgets ended jobs."""

    def __init__(self) -> None:
        probe = subprocess.run(
            ["sacct", "-X", "-n", "-j", "1"], capture_output=True, text=True, check=False
        )
        self.accounting = probe.returncode == 0

    def states(self, ids: Collection[str]) -> dict[str, State] | None:
        if not self.accounting:
            return self._queued(ids)
        known = self._accounted(ids)
        if known is None or not (missing := set(ids) - known.keys()):
            return known
        # accounting may be behind, and shortens the list of an array's pending jobs
        queued = self._queued(missing)
        if queued is None:
            return dict.fromkeys(missing, State("UNKNOWN")) | known
        return queued | known

    def _accounted(self, ids: Collection[str]) -> dict[str, State] | None:
        return self._ask(["sacct", "-X", "-P", "-o", FIELDS], ids, head="")

    def _queued(self, ids: Collection[str]) -> dict[str, State] | None:
        command = ["squeue", "-r", "-t", "all", "-h", "-o", "%i|%T|%r|%N"]
        return self._ask(command, ids, head=FIELDS.replace(",", "|") + "\n")

    def _ask(self, command: list[str], ids: Collection[str], head: str) -> dict[str, State] | None:
        arrays = ",".join(sorted({id_.split("_")[0] for id_ in ids}))  # an array has one id
        command = [*command, "-j", arrays]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        except (OSError, subprocess.TimeoutExpired):  # no memory to fork, or a file system is away
            return None
        if done.returncode != 0:
            unknown = "Invalid job id" in done.stderr  # squeue's error if it knows none of the jobs
            return {} if unknown else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            jobs = SlurmInfoWatcher().read_info(head + done.stdout)
        return {
            # "CANCELLED by 0"
            id_: State(info["State"].split()[0], info["Reason"], info["NodeList"])
            for id_, info in jobs.items()
            if info["State"]
        }

    def cancel(self, ids: Collection[str]) -> None:
        if ids:  # quiet: it is no error that a job has ended
            command = ["scancel", "--quiet", *ids]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


class Local:
    """Processes of submitit on this machine; a job's id is that of its supervising process."""

    def states(self, ids: Collection[str]) -> dict[str, State] | None:
        return {id_: State("RUNNING" if self._process(id_) else "FAILED") for id_ in ids}

    def cancel(self, ids: Collection[str]) -> None:
        for id_ in ids:
            if process := self._process(id_):
                process.send_signal(signal.SIGINT)

    def _process(self, id_: str) -> psutil.Process | None:
        try:
            process = psutil.Process(int(id_))
            # process ids are reused
            if "submitit.local._local" in process.cmdline():
                return process
        except psutil.Error:
            pass
        return None


def why(error: Exception) -> str:
    """The reason why a program of the scheduler failed, in one line."""
    told = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
    return " ".join((told or str(error)).split())


CLUSTERS: dict[str, type[Cluster]] = {"slurm": Slurm, "local": Local}
