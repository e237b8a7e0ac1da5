"""submitit's clusters: where their jobs stand, by one question for all of them, and their end."""

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
    "FAILED": "died before it could tell why",
    "NODE_FAIL": "lost its node",
    "OUT_OF_MEMORY": "was killed for want of memory (resource mem_mb)",
    "PREEMPTED": "was preempted and is not requeued",
    "TIMEOUT": "ran out of time (resource runtime)",
}
# Reasons for which a pending job waits until somebody acts.
STUCK = re.compile(r"held|JobHold|JobHeld|Never|BadConstraints|InvalidQOS|InvalidAccount", re.I)


@dataclass(frozen=True)
class State:
    """What a scheduler says of a job."""

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
        """How it ended, as the rest of a sentence that begins with the job."""
        node = f" on {self.node}" if self.node not in ("", "None assigned") else ""
        return ENDINGS.get(self.name, f"ended as {self.name}") + node


class Cluster(Protocol):
    """A cluster's jobs."""

    def states(self, ids: Collection[str]) -> dict[str, State] | None:
        """The states of the jobs that it knows, or None when it does not answer."""

    def cancel(self, ids: Collection[str]) -> None:
        """Cancel jobs that are queued or run."""


class Slurm:
    """SLURM: ``sacct`` where accounting is on, else ``squeue``, which forgets ended jobs soon."""

    def __init__(self) -> None:
        probe = subprocess.run(
            ["sacct", "-X", "-n", "-j", "1"], capture_output=True, text=True, check=False
        )
        self.accounting = probe.returncode == 0

    def states(self, ids: Collection[str]) -> dict[str, State] | None:
        # an array is asked for by its one id
        wanted = ",".join(sorted({id_.split("_")[0] for id_ in ids}))
        fields = "JobID,State,Reason,NodeList"
        if self.accounting:
            command = ["sacct", "-X", "-P", "-o", fields, "-j", wanted]
        else:
            command = ["squeue", "-r", "-t", "all", "-h", "-o", "%i|%T|%r|%N", "-j", wanted]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        except (OSError, subprocess.TimeoutExpired):  # no memory to fork, a file system away
            return None
        if done.returncode != 0:
            unknown = "Invalid job id" in done.stderr  # squeue's word where it knows none of them
            return {} if unknown else None
        lines = done.stdout if self.accounting else fields.replace(",", "|") + "\n" + done.stdout
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = SlurmInfoWatcher().read_info(lines)
        return {
            # "CANCELLED by 0"
            id_: State(info["State"].split()[0], info["Reason"], info["NodeList"])
            for id_, info in found.items()
            if info["State"]
        }

    def cancel(self, ids: Collection[str]) -> None:
        if ids:
            subprocess.run(["scancel", *ids], check=False, timeout=120)


class Local:
    """submitit's own processes: an id is that of the process that watches over the job."""

    def states(self, ids: Collection[str]) -> dict[str, State] | None:
        return {id_: State("RUNNING" if self._process(id_) else "FAILED") for id_ in ids}

    def cancel(self, ids: Collection[str]) -> None:
        for id_ in ids:
            if process := self._process(id_):
                process.send_signal(signal.SIGINT)

    def _process(self, id_: str) -> psutil.Process | None:
        try:
            process = psutil.Process(int(id_))
            # ids are used again for other processes
            if "submitit.local._local" in process.cmdline():
                return process
        except psutil.Error:
            pass
        return None


CLUSTERS: dict[str, type[Cluster]] = {"slurm": Slurm, "local": Local}
