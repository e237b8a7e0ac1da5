"""Stop, save and resume: one protocol for the training loop and for the linear probe on views."""

import json
import math
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from eqco.runtime.files import write
from eqco.runtime.ranks import from_rank_0, largest, rank
from eqco.runtime.signals import Stop, interrupted
from eqco.store.checkpoint import Checkpoints, State


class Resumable:
    """A loop over steps that can be stopped after each of them and resumed later.

    All ranks call its methods together: they agree on when to save and when to stop. Rank 0 alone
    reads and writes.

    Args:
        checkpoints: where the state is saved. None: nothing is saved, and signals are ignored.
        stop: the flag that signals set; read after each step.
        seconds_between: minimum seconds between two checkpoints, if no signal asks for one.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        stop: Stop | None = None,
        seconds_between: float = math.inf,
    ) -> None:
        self.checkpoints, self.stop, self.seconds_between = checkpoints, stop, seconds_between
        self.saved_at = time.perf_counter()

    def load(self) -> State | None:
        """The newest saved state, on every rank; None to start from the beginning."""
        if self.checkpoints is None:
            return None
        return from_rank_0(self.checkpoints.load() if rank() == 0 else None)

    def after_step(
        self, step: int, steps: int, state: Callable[[], State], *, due: bool = False
    ) -> None:
        """Save the state if it is time to, and stop if a signal has asked for it.

        After the last step nothing is saved: the result follows at once.

        Args:
            step: steps done.
            steps: steps of the whole loop.
            state: returns the state to save; called on every rank, so it may use all of them.
            due: save now, however short ago the last checkpoint is.

        Raises:
            Interrupted: if a signal has asked any rank to stop; the state is saved.
        """
        if self.checkpoints is None or step == steps:
            return
        due = due or time.perf_counter() - self.saved_at > self.seconds_between
        number, any_due = largest(self.stop.asked_by or 0 if self.stop else 0, int(due))
        if number or any_due:
            current = state()
            if rank() == 0:
                self.checkpoints.save(current)
            self.saved_at = time.perf_counter()
        if number:
            largest(number)  # the first rank to end has the others killed: rank 0 has to have saved
            raise interrupted(number, step, steps)


def write_progress(
    path: Path, *, epoch: int, epochs: int, images_per_s: float, seconds: float
) -> None:
    """Write how far a run is, for ``eqco status``.

    Args:
        path: ``progress.json`` in the cell's state folder.
        epoch: epochs done.
        epochs: epochs of the whole run.
        images_per_s: speed of the last epoch; 0 before the first one.
        seconds: time spent on the epochs done, also by earlier processes.
    """
    progress = {
        "epoch": epoch,
        "epochs": epochs,
        "images_per_s": round(images_per_s, 1),
        "seconds": round(seconds, 3),
        "time": time.time(),
        "pid": os.getpid(),
        "host": socket.gethostname(),
    }
    write(path, json.dumps(progress) + "\n")
