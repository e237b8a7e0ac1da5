"""The one exception that a user is meant to read."""


class InputError(Exception):
    """Something that the user gave is wrong.

    The message is one line: the file, the key, the value, and what is allowed. The command line
    prints it and exits with 1; any other exception is a bug and keeps its traceback.
    """
