"""The client of the fork server: hands a command over, and ends as it ends.

While EQCO_FORKSERVER names a server's socket, ``python -m eqco`` hands its arguments, folder,
environment and standard streams to a fork of the server. It passes signals on to the fork, and ends
with the fork's exit code. If no server answers, the command runs without one.

Each command starts this module, so it imports little.
"""

import json
import os
import signal
import socket
import sys

from eqco.runtime.signals import SIGNALS

VARIABLE = "EQCO_FORKSERVER"  # holds the address of the server's socket


def call(arguments: list[str], address: str) -> int | None:
    """Run a command in a fork of the server at ``address``.

    Returns:
        The exit code, or None if no server answers.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
    except OSError:
        return None
    request = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(connection, [len(request).to_bytes(4, "big")], [0, 1, 2])
    connection.sendall(request)
    with connection.makefile("rb") as reply:
        fork = int(reply.readline())
        for number in SIGNALS:
            signal.signal(number, lambda number, frame: os.kill(fork, number))
        code = reply.readline()
    if not code:
        print(f"eqco: process {fork} was killed", file=sys.stderr)
        return 1
    return int(code)
