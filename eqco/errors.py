"""The exceptions that a user is meant to read."""

from typing import Any


class InputError(Exception):
    """Something that the user gave is wrong.

    The message is one line: the file, the key, the value, and what is allowed. The command line
    prints it and exits with 1; any other exception is a bug and keeps its traceback.
    """


class Diverged(InputError):
    """The loss of a training is not finite any more: that is the cell's result.

    Args:
        message: the step, and what may help.
        history: of the epochs before.
    """

    def __init__(self, message: str, history: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.history = history


class Interrupted(Exception):
    """A signal has stopped a run whose state is saved.

    The command line prints the message and exits with ``EXIT_CODE``; the same command resumes.
    """

    EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h
