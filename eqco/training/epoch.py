"""The running sums of one epoch, and the history entry that they become."""

import math
import time
from typing import Any

import torch
from torch import Tensor

from eqco.errors import Diverged
from eqco.store.checkpoint import State
from eqco.training.diagnostics import NAMES, STEP_NAMES, bound, effective_rate
from eqco.training.step import Training


class Epoch:
    """The current epoch of a training: its losses, its finite steps and its seconds.

    The sums stay on the device, so that a step never waits for a number.

    Attributes:
        total: sum of the epoch's losses, a scalar.
        finite: the epoch's steps for which ``total`` is finite, a scalar int64.
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        self.total = torch.zeros((), device=training.device)
        self.finite = torch.zeros((), dtype=torch.long, device=training.device)
        self.start()

    def start(self) -> None:
        """Set the sums to 0 and start the clock."""
        self.total.zero_()
        self.finite.zero_()
        self.started_at, self.earlier_seconds = time.perf_counter(), 0.0

    def resume(self, state: State) -> None:
        """Continue the epoch of a checkpoint, whose seconds count on."""
        self.total.copy_(state.tensors["total"])
        self.finite.copy_(state.tensors["finite"])
        self.started_at, self.earlier_seconds = time.perf_counter(), state.values["seconds"]

    def tensors(self) -> dict[str, Tensor]:
        """The sums, by their names in a checkpoint."""
        return {"total": self.total, "finite": self.finite}

    @property
    def seconds(self) -> float:
        """Seconds spent on the epoch, also by earlier processes."""
        return self.earlier_seconds + time.perf_counter() - self.started_at

    def add(self, loss: Tensor) -> None:
        """Add the loss of a step."""
        self.total += loss
        self.finite += self.total.isfinite()

    def check_finite(self, history: list[dict[str, Any]]) -> None:
        """Raise Diverged, with the history of the epochs before, if a loss was not finite."""
        if math.isfinite(float(self.total)):
            return
        training = self.training
        epoch_start = (training.step - 1) // training.steps_per_epoch * training.steps_per_epoch
        raise Diverged(
            f"the loss is not finite from step {epoch_start + 1 + int(self.finite)} of "
            f"{training.steps} on: pretrain.lr: {training.cell.lr}: a lower rate may train",
            history,
        )

    def entry(self) -> dict[str, Any]:
        """The history entry of the epoch, after its last step; see ``loop.pretrain``."""
        training = self.training
        mean_loss = float(self.total) / training.steps_per_epoch
        images = training.steps_per_epoch * training.cell.batch
        numbers = (None if math.isnan(x) else x for x in training.diagnosis.tolist())
        diagnosis = dict(zip((*NAMES, *STEP_NAMES), numbers, strict=True))
        lr, weight, cv = training.lr(training.step - 1), diagnosis["weight"], diagnosis["weight_cv"]
        return {
            "epoch": training.step // training.steps_per_epoch,
            "loss": mean_loss,
            **diagnosis,
            "bound": bound(training.cell, mean_loss),
            "lr": lr,
            "effective_rate": None
            if weight is None or cv is None
            else effective_rate(lr, weight, cv),
            "images": images,
            "images_per_s": images / self.seconds,
        }
