"""The exceptions that a user is meant to read."""


class InputError(Exception):
    """Something that the user gave is wrong.

    The message is one line: the file, the key, the value, and what is allowed. The command line
    prints it and exits with 1; any other exception is a bug and keeps its traceback.
    """


class Interrupted(Exception):
    """A signal has stopped a run whose state is saved.

    The command line prints the message and exits with ``EXIT_CODE``: run again to go on.
    """

    EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h
