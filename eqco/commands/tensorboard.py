"""A training's epochs for TensorBoard: each number of the history, by epoch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from eqco.runtime.extras import extra

Report = Callable[[dict[str, Any]], None]


def reporter(folder: Path, cell: str) -> Report:
    """A callback of ``training.loop.pretrain`` that writes each epoch's entry at once.

    Args:
        folder: of all cells' logs; ``tensorboard --logdir`` shows it.
        cell: the cell's path, the name of its run.

    Raises:
        InputError: if tensorboard is not installed.
    """
    extra("tensorboard", "tensorboard", "--tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer: SummaryWriter | None = None

    def report(entry: dict[str, Any]) -> None:
        nonlocal writer
        epoch = entry["epoch"]
        if writer is None:  # it hides what an earlier process has written of this epoch and later
            writer = SummaryWriter(folder / cell, purge_step=epoch)
        for name, value in entry.items():
            if value is not None and name != "epoch":
                writer.add_scalar(name, value, epoch)
        writer.flush()

    return report
