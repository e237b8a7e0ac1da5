"""Modules of the project's extras, which not every environment has."""

from importlib import import_module
from typing import Any

from eqco.errors import InputError


def extra(module: str, name: str, asked: str) -> Any:
    """A module of one of the project's extras.

    Args:
        module: its name.
        name: the extra's.
        asked: what needs it, for the message.

    Raises:
        InputError: if it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise InputError(
            f'{asked}: {module} is not installed; `pip install "eqco[{name}]"` brings it'
        ) from None
