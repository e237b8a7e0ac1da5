"""submitit's clusters: the states of their jobs, by one query for all, and cancellation."""

import math
import re
import signal
import socket
import subprocess
import time
import warnings
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import psutil
from submitit.slurm.slurm import SlurmInfoWatcher

from snakemake_executor_plugin_submitit.runs import array_of

# the states of a job that has ended: a newer SLURM may have more for one that has not
ENDINGS = {
    "BOOT_FAIL": "was given a node that did not start",
    "CANCELLED": "was cancelled",
    "COMPLETED": "ended",
    "DEADLINE": "missed its deadline",
    "FAILED": "died without an error message",
    "NODE_FAIL": "lost its node",
    "OUT_OF_MEMORY": "ran out of memory (resource mem_mb)",
    "PREEMPTED": "was preempted and is not requeued",
    "TIMEOUT": "ran out of time (resource runtime)",
}
# ends after which a job may be requeued: accounting tells of its new start later than the queue
MAY_GO_ON = ("BOOT_FAIL", "NODE_FAIL", "PREEMPTED")
# reasons for which a pending job waits until somebody acts
STUCK = re.compile(r"held|JobHold|JobHeld|Never|BadConstraints|InvalidQOS|InvalidAccount", re.I)
FIELDS = "JobID,State,Reason,NodeList"
SECONDS = 120  # to wait for a program of SLURM's


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
    """A cluster, which runs jobs.

    Attributes:
        where: the cluster's own name, or the machine's; empty before it is known.
        array_size: the maximum number of jobs of an array.
        patience: seconds for which a job may be unknown to it before the job counts as ended.
        forgets: seconds for which it knows a job that has ended.
    """

    where: str
    array_size: float
    patience: float
    forgets: float

    def is_known(self) -> bool:
        """Whether it has told its name and limits; asks for them until it has."""

    def states(
        self, ids: Collection[str], names: Collection[str], since: float
    ) -> dict[str, State] | None:
        """The states of jobs.

        Args:
            ids: of the jobs.
            names: of the jobs, on the cluster.
            since: seconds since the epoch; what ended before may be left out.

        Returns:
            The states of those that it knows, and of others of these names; None if it does not
            answer.
        """

    def queue(self, names: Collection[str]) -> dict[str, State] | None:
        """The states of queued and running jobs by these names; None if it does not answer."""

    def cancel(self, ids: Collection[str], name: str) -> None:
        """Cancel queued and running jobs, or whole arrays, of a name.

        Raises:
            OSError, SubprocessError: that failed.
        """


class Slurm:
    """SLURM: ``sacct`` if accounting is on, else ``squeue``, which soon forgets ended jobs.

    Jobs are asked for and cancelled by names that no other run has: numbers begin again on a new
    cluster, and one question for any number of jobs has the same length.
    """

    def __init__(self) -> None:
        self.accounting = _accounts()
        # accounting may be hours behind, and the queue forgets what ended
        self.patience: float = 300 if self.accounting else 30
        self.where = ""
        self.is_known()

    def is_known(self) -> bool:
        if not self.where:
            config: dict[str, str] = {}
            with suppress(OSError, subprocess.TimeoutExpired):
                config = configuration()
            self.where = config.get("ClusterName", "")
            self.array_size: float = _number(config.get("MaxArraySize"), 1001) - 1
            age = _number(config.get("MinJobAge"), 300)
            self.forgets: float = math.inf if self.accounting else age
        return bool(self.where)

    def states(
        self, ids: Collection[str], names: Collection[str], since: float
    ) -> dict[str, State] | None:
        told = self._accounted(names, since) if self.accounting else {}
        known = told or {}
        unsure = {id_ for id_ in ids if id_ not in known or known[id_].name in MAY_GO_ON}
        if told is not None and not unsure:
            return known
        # accounting may be behind, and shortens the list of an array's pending jobs
        queued = self.queue(names)
        if queued is None and not told:
            return None
        sure = {id_: state for id_, state in known.items() if id_ not in unsure}
        known |= (queued or {}) | sure
        if queued is None or told is None:  # the one that is silent may know the others
            return dict.fromkeys(set(ids) - known.keys(), State("UNKNOWN")) | known
        return known

    def _accounted(self, names: Collection[str], since: float) -> dict[str, State] | None:
        start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since))
        return _ask(["sacct", "-X", "-P", "-o", FIELDS, "-S", start], names, head="")

    def queue(self, names: Collection[str]) -> dict[str, State] | None:
        command = ["squeue", "-r", "-t", "all", "-h", "-o", "%i|%T|%r|%N"]
        return _ask(command, names, head=FIELDS.replace(",", "|") + "\n")

    def cancel(self, ids: Collection[str], name: str) -> None:
        if ids:  # quiet: it is no error that a job has ended
            command = ["scancel", "--quiet", "--name", name, *ids]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS)


def _ask(command: list[str], names: Collection[str], head: str) -> dict[str, State] | None:
    """The states of the jobs by these names; None without an answer."""
    try:
        done = _run([*command, "--name", ",".join(sorted(names))])
    except (OSError, subprocess.TimeoutExpired):  # no memory to fork, or a file system is away
        return None
    if done.returncode != 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jobs = SlurmInfoWatcher().read_info(head + done.stdout)
    return {
        # "CANCELLED by 0"
        id_: State(info["State"].split()[0], info["Reason"], info["NodeList"])
        for id_, info in jobs.items()
        if info["State"]
    }


def _accounts() -> bool:
    """Whether SLURM keeps accounts: a database that does not answer now is one."""
    try:
        done = _run(["sacct", "-X", "-n", "-j", "1"])
    except FileNotFoundError:
        return False
    except (OSError, subprocess.TimeoutExpired):
        return True
    return done.returncode == 0 or "disabled" not in done.stderr


def configuration(seconds: float = SECONDS) -> dict[str, str]:
    """SLURM's configuration; empty if the controller does not answer.

    Args:
        seconds: to wait for it.

    Raises:
        OSError, TimeoutExpired: there is no scontrol that can be run, or it takes too long.
    """
    told = _run(["scontrol", "show", "config"], seconds).stdout
    return dict(re.findall(r"^(\w+) *= *(.*)$", told, re.M))


def _number(text: str | None, default: int) -> int:
    """The number that a value of SLURM's configuration begins with, as in "300 sec"."""
    found = re.match(r"\d+", text or "")
    return int(found[0]) if found else default


def _run(command: list[str], seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)


class Local:
    """Processes of submitit on this machine; a job's id is that of its supervising process."""

    where = socket.gethostname()
    array_size = patience = forgets = math.inf

    def is_known(self) -> bool:
        return True

    def states(
        self, ids: Collection[str], names: Collection[str], since: float
    ) -> dict[str, State] | None:
        return {id_: State("RUNNING" if self._process(id_) else "FAILED") for id_ in ids}

    def queue(self, names: Collection[str]) -> dict[str, State] | None:
        return {}  # what was submitted is known

    def cancel(self, ids: Collection[str], name: str) -> None:
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


def cancel_others(cluster: Cluster, name: str, known: Collection[str]) -> list[str]:
    """Cancel the queued and running arrays of a name, but for those whose ids are known.

    Returns:
        Their ids.

    Raises:
        OSError, SubprocessError: the scheduler does not answer.
    """
    queued = cluster.queue([name])
    if queued is None:
        raise OSError(f"it is not known whether {name} is queued")
    lost = sorted({array_of(id_) for id_, state in queued.items() if state.active} - set(known))
    cluster.cancel(lost, name)
    return lost


CLUSTERS: dict[str, type[Cluster]] = {"slurm": Slurm, "local": Local}
