"""A fork server: commands start without the wait for imports.

Importing torch and its optimisers takes about three seconds, as long as a small cell trains.
``start`` starts a server that has imported them; ``forkclient`` hands commands over to its forks.

The server ends with the process that started it. A fork gets SIGTERM when its command or the server
has ended: nobody waits for it any more, so a training saves its state and stops.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable

from eqco.forkclient import VARIABLE


def start() -> None:
    """Start a server for the commands that this process starts from now on."""
    os.environ[VARIABLE] = launch(["-m", "eqco.forkserver"])


def launch(program: list[str]) -> str:
    """Start a Python program that calls ``serve``, and return the address of its socket.

    Args:
        program: Python's arguments. The socket's file descriptor, the id of this process and the
            socket's folder, which the program removes at its end, are added.
    """
    folder = tempfile.mkdtemp(prefix="eqco-")  # readable by this user alone
    address = os.path.join(folder, "socket")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(128)  # commands may connect before the imports are done
    subprocess.Popen(
        [sys.executable, *program, str(listener.fileno()), str(os.getpid()), folder],
        pass_fds=[listener.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C goes to the commands, which pass it on
    )
    listener.close()
    return address


def serve(listener: socket.socket, parent: int, main: Callable[[], None]) -> None:
    """Fork for every connection, until the process ``parent`` has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks report their exit codes themselves
    # the server alone holds the writing end, so the pipe closes when the server ends
    server_alive, server_end = os.pipe()
    listener.settimeout(1)
    gc.collect()
    gc.freeze()  # else a fork's collector writes to what both share, and so copies it
    while os.getppid() == parent:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        if os.fork() == 0:
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                os.close(server_end)
                connection.setblocking(True)
                _answer(connection, server_alive, main)
            finally:
                os._exit(0)  # without the server's clean-up
        connection.close()
    gc.unfreeze()  # modules tell of leaks if it is not collected at the end


def _answer(connection: socket.socket, server_alive: int, main: Callable[[], None]) -> None:
    """Run the command that a connection asks for, in this fork."""
    length, streams, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as request:
        arguments, folder, environment = json.loads(request.read(int.from_bytes(length, "big")))
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    connection.sendall(f"{os.getpid()}\n".encode())
    threading.Thread(target=_end_with, args=[connection, server_alive], daemon=True).start()
    code = 0
    try:
        main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    for output in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            output.flush()
    connection.sendall(f"{code}\n".encode())


def _end_with(connection: socket.socket, server_alive: int) -> None:
    """End this process when its command or the server has ended."""
    ends: list[socket.socket | int] = [connection, server_alive]
    select.select(ends, [], [])  # neither end sends anything, so readable means closed
    os.kill(os.getpid(), signal.SIGTERM)


def serve_commands(descriptor: str, parent: str, folder: str) -> None:
    """Import the modules that commands need, then serve; the main function of the server."""
    try:
        import torch

        import eqco.commands.evaluate
        import eqco.commands.pretrain  # noqa: F401
        from eqco.commands.cli import main
        from eqco.study.methods import METHODS

        for entry in METHODS.values():
            importlib.import_module(entry.location.partition(":")[0])

        torch.optim.SGD([torch.zeros(1)])  # optimisers import further modules on first use
        serve(socket.socket(fileno=int(descriptor)), int(parent), main)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    serve_commands(*sys.argv[1:])
