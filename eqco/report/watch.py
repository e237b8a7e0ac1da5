"""Watching a study: what is shown is drawn again until nothing is left to wait for."""

import time
from collections.abc import Callable
from contextlib import suppress


def watch(draw: Callable[[], bool], seconds: float) -> None:
    """Call ``draw`` until it returns False, or until someone presses Ctrl-C.

    Args:
        draw: shows the present state, and says whether it can still change.
        seconds: between two calls.
    """
    with suppress(KeyboardInterrupt):
        while draw():
            time.sleep(seconds)
