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

ACTIVE = {
    *("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING"),
    *("COMPLETING", "STAGE_OUT", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"),
}
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


@dataclass(frozen=True)
class State:
    """The state of a job, as the scheduler reports it."""

    name: str
    reason: str = ""
    node: str = ""

    @property
    def active(self) -> bool:
        return self.name in ACTIVE

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
        """Cancel queued and running jobs."""


class Slurm:
    """SLURM: ``sacct`` if accounting is on, else ``squeue``, which soon forgets ended jobs."""

    def __init__(self) -> None:
        probe = subprocess.run(
            ["sacct", "-X", "-n", "-j", "1"], capture_output=True, text=True, check=False
        )
        self.accounting = probe.returncode == 0

    def states(self, ids: Collection[str]) -> dict[str, State] | None:
        # an array has one id
        arrays = ",".join(sorted({id_.split("_")[0] for id_ in ids}))
        fields = "JobID,State,Reason,NodeList"
        if self.accounting:
            command = ["sacct", "-X", "-P", "-o", fields, "-j", arrays]
        else:
            command = ["squeue", "-r", "-t", "all", "-h", "-o", "%i|%T|%r|%N", "-j", arrays]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        except (OSError, subprocess.TimeoutExpired):  # no memory to fork, or a file system is away
            return None
        if done.returncode != 0:
            unknown = "Invalid job id" in done.stderr  # squeue's error if it knows none of the jobs
            return {} if unknown else None
        lines = done.stdout if self.accounting else fields.replace(",", "|") + "\n" + done.stdout
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            jobs = SlurmInfoWatcher().read_info(lines)
        return {
            # "CANCELLED by 0"
            id_: State(info["State"].split()[0], info["Reason"], info["NodeList"])
            for id_, info in jobs.items()
            if info["State"]
        }

    def cancel(self, ids: Collection[str]) -> None:
        if ids:
            subprocess.run(["scancel", *ids], check=False, timeout=120)


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


CLUSTERS: dict[str, type[Cluster]] = {"slurm": Slurm, "local": Local}
