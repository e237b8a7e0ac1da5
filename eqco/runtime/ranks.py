"""Ranks: several processes, one per GPU, that train one cell.

Each rank takes its share of each batch through the encoders. The embeddings of all ranks are then
gathered on every rank, and each rank goes on as one process with the whole batch would. A method
therefore knows nothing of ranks. The gradient of a gathered embedding is that of the whole loss;
the ranks' weights get the mean of their gradients, by torch's DistributedDataParallel.

``launch`` starts the ranks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from eqco.errors import Interrupted


@dataclass(frozen=True)
class Share:
    """Every ``of``-th row of a batch, starting at row ``first``."""

    first: int = 0
    of: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        """Select the rows (B / of, ...) of x (B, ...)."""
        return x if self.of == 1 else x[self.first :: self.of]


WHOLE = Share()


def rank() -> int:
    """The rank of this process; 0 if it runs alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share() -> Share:
    """The rows of a batch that are this rank's."""
    return Share(rank(), ranks())


def gather(x: Tensor) -> Tensor:
    """The rows (B, ...) of the whole batch, from each rank's share (B / ranks, ...).

    Differentiable if every rank computes the same function of the result.
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


_cpu_group: Any = None  # gloo, for small messages that must not wait for the GPU


def largest(*numbers: int) -> list[int]:
    """The maximum of each number over all ranks; every rank has to call it."""
    if ranks() == 1:
        return list(numbers)
    maxima = torch.tensor(numbers)
    dist.all_reduce(maxima, dist.ReduceOp.MAX, _cpu_group)
    return maxima.tolist()


def from_rank_0(value: Any) -> Any:
    """The value that rank 0 has, on every rank; every rank has to call it."""
    values = [value]
    if ranks() > 1:
        dist.broadcast_object_list(values, 0, _cpu_group)
    return values[0]


def is_rank() -> bool:
    """Whether torchrun or srun has started this process as one of several."""
    return dist.is_torchelastic_launched() or int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the process group for the duration of the block.

    Does nothing if this is the only process.

    Args:
        device: of this rank.

    Raises:
        Interrupted: if another rank is lost.
    """
    if not is_rank():
        yield
        return
    _join(device)
    try:
        yield
    except RuntimeError as error:
        if not _is_lost_peer(error):
            raise
        raise Interrupted(f"rank {rank()} of {ranks()} has lost another one") from None
    dist.destroy_process_group()


def _join(device: torch.device) -> None:
    global _cpu_group
    if not dist.is_torchelastic_launched():
        _export_slurm()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    # rank 0 may wait for days for another process on the same cell
    _cpu_group = dist.new_group(backend="gloo", timeout=timedelta(days=7))


def _export_slurm() -> None:
    """Set the variables that torch.distributed reads (RANK, WORLD_SIZE, …) from srun's."""
    from submitit.helpers import TorchDistributedEnvironment

    slurm = TorchDistributedEnvironment()
    # a node's name in SLURM need not be a host name
    slurm.master_addr = os.environ.get("MASTER_ADDR", slurm.master_addr)
    slurm.export(set_cuda_visible_devices=False, overwrite=True)


def _is_lost_peer(error: RuntimeError) -> bool:
    # gloo raises a plain RuntimeError, which only its text tells from others
    return isinstance(error, dist.DistError) or "gloo" in str(error)
