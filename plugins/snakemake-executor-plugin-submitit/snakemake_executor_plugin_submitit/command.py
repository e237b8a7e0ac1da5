"""The work of a submitit job: one shell command, whose processes are stopped with the job.

Jobs unpickle this module, so it imports neither Snakemake nor anything slow.
"""

import json
import os
import re
import resource
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from submitit.core.job_environment import JobEnvironment
from submitit.core.utils import JobPaths
from submitit.helpers import DelayedSubmission

from snakemake_executor_plugin_submitit.runs import write

GRACE_SECONDS = 60  # for a command to save its state; SLURM's own limit is often shorter


@dataclass(frozen=True)
class Outcome:
    """The end of a command.

    Attributes:
        code: its exit code; None if it was stopped and may not be requeued again.
        out_of_memory: whether the kernel killed it out of memory.
        seconds: from its start to its end.
        cpu_seconds: of all of its processes.
        max_rss_mb: the most memory that one of its processes held, in MiB.
    """

    code: int | None
    out_of_memory: bool = False
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    max_rss_mb: float = 0.0


def outcome_file(folder: Path, id_: str) -> Path:
    """The file for the outcome of a job, in its run's folder."""
    return folder / f"{id_}_outcome.json"


def read_outcome(path: Path) -> Outcome:
    """The outcome in a file.

    Raises:
        OSError, ValueError, TypeError: there is none, or none that can be read.
    """
    return Outcome(**json.loads(path.read_text(encoding="utf-8")))


class RunCommand:
    """Run a shell command in a process group of its own.

    The job ends with the command: exit code 0 is success for the scheduler, too. A file beside
    submitit's has the rest (``Outcome``); nobody unpickles it.

    SLURM sends SIGUSR2 before a time limit or a preemption. The command's processes get it too and
    have time to save their state; then the job is requeued. SIGTERM comes with a cancellation, a
    requeue by hand or a sudden preemption. The command's processes get it too, and the job ends
    without an outcome: only the scheduler's state tells the reason.

    Args:
        command: for the shell.
        folder: to run it in.
        requeues: how many more times the job may be requeued.
        changes: to the environment; None removes a variable.
    """

    def __init__(
        self, command: str, folder: str, requeues: int, changes: dict[str, str | None]
    ) -> None:
        self.command = command
        self.folder = folder
        self.requeues = requeues
        self.changes = changes
        self._group: int | None = None  # a signal may come before there is one

    def __call__(self) -> None:
        kills, start = oom_kills(), time.monotonic()
        environment = {**os.environ, **self.changes}
        process = subprocess.Popen(
            self.command,
            shell=True,
            cwd=self.folder,
            env={name: value for name, value in environment.items() if value is not None},
            start_new_session=True,
        )
        self._group = process.pid
        signal.signal(signal.SIGTERM, self._terminate)
        try:
            # not Popen.wait: its lock is held while a signal's handler runs
            _, status = os.waitpid(process.pid, 0)
        except BaseException:
            self._end(signal.SIGTERM)
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        outcome = Outcome(
            process.returncode,
            oom_kills() > kills,
            seconds=time.monotonic() - start,
            cpu_seconds=used.ru_utime + used.ru_stime,
            max_rss_mb=used.ru_maxrss / 1024,
        )
        self._leave(outcome)
        if process.returncode != 0:
            raise SystemExit(1)  # no other code: submitit's local jobs give one a meaning

    def checkpoint(self) -> DelayedSubmission | None:
        """The job to run after a requeue, None to give up; submitit calls this on SIGUSR2."""
        self._end(signal.SIGUSR2)
        # submitit refuses to save what an earlier start was killed in saving
        for path in _paths().folder.glob(f"{_paths().job_id}_*.save_tmp"):
            path.unlink(missing_ok=True)
        if self.requeues == 0:
            self._leave(Outcome(None))
            return None
        again = RunCommand(self.command, self.folder, self.requeues - 1, self.changes)
        return DelayedSubmission(again)

    def _leave(self, outcome: Outcome) -> None:
        write(outcome_file(_paths().folder, str(_paths().job_id)), asdict(outcome))

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._end(signal.SIGTERM)
        os._exit(1)  # not as if SIGTERM had killed it: then start.sh would wait

    def _end(self, number: signal.Signals) -> None:
        """Signal the command's processes and wait for the last of them."""
        if self._group is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._group, number)
        deadline = time.monotonic() + GRACE_SECONDS
        while is_alive(self._group) and time.monotonic() < deadline:
            time.sleep(0.2)  # each look is at all of the node's processes
        with suppress(ProcessLookupError):
            os.killpg(self._group, signal.SIGKILL)


def _paths() -> JobPaths:
    """The files of the job that this process is."""
    return JobEnvironment().paths


def is_alive(group: int) -> bool:
    """Whether a process group has a process that is not a zombie."""
    import psutil  # where it is needed: it would slow every job's start

    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def oom_kills() -> int:
    """The number of processes of this control group that the kernel has killed out of memory."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "memory":
                file = Path("/sys/fs/cgroup/memory" + path, "memory.oom_control")
            elif not controllers:
                file = Path("/sys/fs/cgroup" + path, "memory.events")
            else:
                continue
            with suppress(OSError):
                if count := re.search(r"^oom_kill (\d+)$", file.read_text(encoding="utf-8"), re.M):
                    return int(count[1])
    return 0
