"""Start the ranks of a command: by ``torchrun``, or on several nodes by SLURM's ``srun``."""

import os
import signal
import subprocess
import sys

from eqco.errors import Interrupted
from eqco.runtime.ranks import is_rank
from eqco.runtime.signals import SIGNALS

SECONDS_TO_STOP = 20  # for the other ranks, after one has ended


def launched(gpus: int) -> bool:
    """Run this process's command as several ranks, to its end, if it asks for several.

    Args:
        gpus: GPUs per node that the command was given.

    Returns:
        Whether the ranks have done the command's work. False in a rank, and if one process is
        enough: the caller then does the work itself.

    Raises:
        Interrupted: if a signal has stopped the ranks, or one of them was lost.
        SystemExit: if a rank has failed; the rank has printed why.
    """
    if is_rank() or (gpus <= 1 and nodes() == 1):
        return False
    if nodes() > 1:
        _srun(nodes(), max(gpus, 1))
    else:
        _torchrun(gpus)
    return True


def nodes() -> int:
    """The number of nodes of the SLURM job that this process runs in; 1 outside of a job."""
    return int(os.environ.get("SLURM_JOB_NUM_NODES", 1))  # SLURM_NNODES is the step's


def _torchrun(gpus: int) -> None:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    signals = ",".join(number.name for number in SIGNALS)
    options = ["--standalone", f"--nproc-per-node={gpus}", f"--signals-to-handle={signals}"]
    options += [f"--shutdown-timeout={SECONDS_TO_STOP}", "-m", "eqco"]
    try:
        run.main([*options, *sys.argv[1:]])
    except SignalException as error:
        raise Interrupted(f"{gpus} ranks were stopped by {error.sigval.name}") from None
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        lost = min(codes, key=lambda rank: _order(codes[rank]))
        if (code := codes[lost]) > 0:
            sys.exit(code)
        raise Interrupted(
            f"rank {lost} of {gpus} has ended by {signal.Signals(-code).name}, the "
            "others were stopped: the same command goes on from the last checkpoint"
        ) from None


def _order(code: int) -> int:
    """Sort key: the exit code that explains the failure comes first.

    A rank that fails has printed why; a rank that is killed has not. Both end the other ranks,
    which lose a peer or get torchrun's SIGTERM, even if they are about to end.
    """
    if code in (Interrupted.EXIT_CODE, -signal.SIGTERM):
        return 2
    return 0 if code > 0 else 1


def _srun(count: int, gpus: int) -> None:
    cpus = int(os.environ.get("SLURM_CPUS_PER_TASK", gpus))  # of the job's one task, to be shared
    command = ["srun", "--overlap", f"--nodes={count}", f"--ntasks={count * gpus}"]
    command += [f"--ntasks-per-node={gpus}", f"--cpus-per-task={max(cpus // gpus, 1)}"]
    command += ["--kill-on-bad-exit=1", sys.executable, "-m", "eqco"]
    process = subprocess.Popen([*command, *sys.argv[1:]], start_new_session=True)
    for number in SIGNALS:  # SIGUSR2 is the only one that srun passes on without acting on it
        signal.signal(number, lambda number, frame: process.send_signal(signal.SIGUSR2))
    if code := process.wait():  # the largest of the ranks' codes, or 128 + a signal's number
        if code < Interrupted.EXIT_CODE:
            sys.exit(code)
        raise Interrupted(
            f"{count} x {gpus} ranks have ended by exit code {code}: "
            "the same command goes on from the last checkpoint"
        )
