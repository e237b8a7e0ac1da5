"""Signals that ask a program to end: they set a flag, and the run saves its state first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from eqco.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@dataclass
class Stop:
    """A flag: whether a signal has asked the run to stop, and the signal's number."""

    asked_by: int | None = None

    def __bool__(self) -> bool:
        return self.asked_by is not None


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Set a flag on each of SIGNALS for the duration of the block, instead of ending."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.asked_by = number

    handlers = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def interrupted(number: int, step: int, steps: int) -> Interrupted:
    """The exception that ends a run after signal ``number``, once its state is saved."""
    return Interrupted(
        f"stopped by {signal.Signals(number).name} at step {step} of {steps}, saved: "
        "the same command goes on from there"
    )
