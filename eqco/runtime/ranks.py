"""Several processes, one a GPU, that train one cell: ranks.

Every rank takes a share of each batch through the encoders, and the embeddings of all are gathered
on every rank; from there on each rank does what one process with the whole batch does, so a method
knows nothing of ranks. A gathered embedding's gradient is the whole loss's, and the ranks' weights
get the mean of their gradients, as torch's DistributedDataParallel takes it.

Ranks are started by ``torchrun``, or on several nodes by SLURM's ``srun``.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eqco.errors import Interrupted
from eqco.runtime.signals import SIGNALS

SECONDS_TO_STOP = 20  # for the other ranks, when one has ended


@dataclass(frozen=True)
class Share:
    """Every ``of``-th row of a batch, from the row ``first`` on."""

    first: int = 0
    of: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        """(B / of, ...) of (B, ...)."""
        return x if self.of == 1 else x[self.first :: self.of]


WHOLE = Share()


def rank() -> int:
    """Of this process, from 0; 0 where there is one process."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share() -> Share:
    """This rank's rows of a batch."""
    return Share(rank(), ranks())


def gather(x: Tensor) -> Tensor:
    """The rows of all ranks, (B, ...), of every rank's share (B / ranks, ...).

    Differentiable where every rank goes on with the same function of the whole.
    """
    return x if ranks() == 1 else _Gather.apply(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        x = x.contiguous()
        shares = [torch.empty_like(x) for _ in range(ranks())]
        dist.all_gather(shares, x)
        return torch.stack(shares, dim=1).flatten(0, 1)  # row i of rank r is i · ranks + r

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        # each rank has the gradient of the whole loss; the mean over ranks is taken later
        return share()(gradient) * ranks()


def batch_norm() -> type[nn.Module]:
    """Batch norm over the whole batch, whose shares the ranks have: torch's is for GPUs alone."""
    return nn.SyncBatchNorm if dist.get_backend() == "nccl" else SyncBatchNorm


class SyncBatchNorm(_BatchNorm):
    """Batch norm over the shares of all ranks, on CPUs."""

    def _check_input_dim(self, x: Tensor) -> None:
        """Of the base class: every number of dimensions will do."""

    def forward(self, x: Tensor) -> Tensor:
        """(B / ranks, C, ...) to the same shape."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        axes = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        count = x.numel() // x.shape[1] * ranks()
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = _Sum.apply(x.sum(axes)) / count  # (C,)
        x = x - mean.view(shape)
        var = _Sum.apply(x.square().sum(axes)) / count  # (C,)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(var * count / (count - 1), self.momentum or 0.0)
            self.num_batches_tracked += 1
        scale = self.weight * (var + self.eps).rsqrt()
        return x * scale.view(shape) + self.bias.view(shape)


class _Sum(torch.autograd.Function):
    """Over all ranks, of the values and of the gradients that come back to them."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return _Sum.apply(gradient)


@torch.no_grad()
def average_statistics(module: nn.Module) -> None:
    """Give every rank the mean of all ranks' running statistics of batch norm.

    Batch norm that is not synchronised has each rank's own; a running mean being linear, the mean
    of theirs is that of one process with all groups of the batch.
    """
    if ranks() == 1:
        return
    for norm in module.modules():
        if isinstance(norm, _BatchNorm):
            for statistic in (norm.running_mean, norm.running_var):
                assert statistic is not None
                dist.all_reduce(statistic)
                statistic /= ranks()


_hosts: Any = None  # for what no GPU has to be waited for


def largest(*numbers: int) -> list[int]:
    """The largest of all ranks' numbers, each for itself; every rank has to ask."""
    if ranks() == 1:
        return list(numbers)
    found = torch.tensor(numbers)
    dist.all_reduce(found, dist.ReduceOp.MAX, _hosts)
    return found.tolist()


def from_first(value: Any) -> Any:
    """What rank 0 has, on every rank."""
    values = [value]
    if ranks() > 1:
        dist.broadcast_object_list(values, 0, _hosts)
    return values[0]


def nodes() -> int:
    """Of the SLURM job that this process runs in; 1 outside of one."""
    return int(os.environ.get("SLURM_JOB_NUM_NODES", 1))  # SLURM_NNODES is the step's


def is_rank() -> bool:
    """Whether torchrun or srun has started this process as one of several."""
    return dist.is_torchelastic_launched() or int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1


@contextmanager
def joined(device: Callable[[], torch.device]) -> Iterator[None]:
    """Be one of the ranks for the length of the block; for a process alone nothing happens.

    Args:
        device: gives the rank's own; asked of ranks alone.

    Raises:
        Interrupted: when another rank is gone.
    """
    global _hosts
    if not is_rank():
        yield
        return
    if not dist.is_torchelastic_launched():
        from submitit.helpers import TorchDistributedEnvironment

        slurm = TorchDistributedEnvironment()
        # where a node's name in SLURM is no host's
        slurm.master_addr = os.environ.get("MASTER_ADDR", slurm.master_addr)
        slurm.export(set_cuda_visible_devices=False, overwrite=True)
    own = device()
    if own.type == "cuda":
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if own.type == "cuda" else "gloo")
    # rank 0 may wait long for another process on the same cell
    _hosts = dist.new_group(backend="gloo", timeout=timedelta(days=7))
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise Interrupted(f"rank {rank()} of {ranks()} has lost another one") from None
    dist.destroy_process_group()


def launch(gpus: int) -> None:
    """Run this process's command as ``gpus`` ranks on each node of the job, to its end.

    Raises:
        Interrupted: when a signal has stopped the ranks, or one of them was lost.
        SystemExit: when one has failed and said why.
    """
    if nodes() > 1:
        _srun(nodes(), gpus)
    else:
        _torchrun(gpus)


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
    """By which the code that a job of several ranks ends for comes first.

    A rank that fails has said why; one that is killed has not. Both take the others along, which
    miss a rank or get torchrun's SIGTERM, be it on their way out.
    """
    if code in (Interrupted.EXIT_CODE, -signal.SIGTERM):
        return 2
    return 0 if code > 0 else 1


def _srun(count: int, gpus: int) -> None:
    cpus = int(os.environ.get("SLURM_CPUS_PER_TASK", gpus))  # of the one task, which becomes many
    command = ["srun", "--overlap", f"--nodes={count}", f"--ntasks={count * gpus}"]
    command += [f"--ntasks-per-node={gpus}", f"--cpus-per-task={max(cpus // gpus, 1)}"]
    command += ["--kill-on-bad-exit=1", sys.executable, "-m", "eqco"]
    process = subprocess.Popen([*command, *sys.argv[1:]], start_new_session=True)
    for number in SIGNALS:  # the only one of them that srun passes on and does nothing else
        signal.signal(number, lambda number, frame: process.send_signal(signal.SIGUSR2))
    if code := process.wait():  # the largest of the ranks' own, or 128 and a signal's number
        if code < Interrupted.EXIT_CODE:
            sys.exit(code)
        raise Interrupted(
            f"{count} x {gpus} ranks have ended by exit code {code}: "
            "the same command goes on from the last checkpoint"
        )
