"""Signals that ask a program to end: they set a flag, and the run saves its state first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from eqco.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Stop:
    """A flag: whether a signal has asked the run to stop.

    Attributes:
        asked_by: the signal's number; None if there was none.
    """

    def __init__(self, asked_by: int | None = None) -> None:
        self.asked_by = asked_by

    def __bool__(self) -> bool:
        return self.asked_by is not None


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Set a flag on each of SIGNALS for the duration of the block, instead of ending.

    If the block ends in Interrupted, SIGNALS are ignored from then on: the process is about to end
    with its state saved, and a second signal shall not change its exit code.
    """
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.asked_by = number

    handlers = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield stop
    except Interrupted:
        # another rank may have told of a signal that has yet to reach this one
        handlers = dict.fromkeys(SIGNALS, signal.SIG_IGN)
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def interrupted(number: int, step: int, steps: int) -> Interrupted:
    """The exception that ends a run after signal ``number``, once its state is saved."""
    return Interrupted(
        f"stopped by {signal.Signals(number).name} at step {step} of {steps}, saved: "
        "the same command goes on from there"
    )
