"""The fixtures of these tests are in slurms.py."""

import signal

import pytest

# A shell's background jobs ignore it, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures, unless a repository around these tests has loaded them for its own, too.

    It is no ``pytest_plugins``: pytest allows that name in the topmost conftest.py alone.
    """
    config.pluginmanager.import_plugin("slurms")
