"""A command through the fork server is the command: same bytes, same exit code, same signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import TINY, cells

from eqco import forkserver
from eqco.study.load import load_study

CELL = next(iter(cells(load_study(TINY))))


@pytest.fixture
def server(address):
    """The environment of commands that have a server."""
    return {**os.environ, forkserver.VARIABLE: address}


def command(out: Path, digits: Path) -> list[str]:
    arguments = ["pretrain", TINY, "--cell", CELL, "--data", digits, "--out", out, "--threads", 1]
    return [sys.executable, "-m", "eqco", *map(str, arguments)]


def test_the_same_bytes_with_and_without(server, digits, tmp_path):
    subprocess.run(command(tmp_path / "cold", digits), check=True)
    done = subprocess.run(
        command(tmp_path / "forked", digits), env=server, check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("epoch 1/1  loss ")
    for name in ("encoder.safetensors", "config.json"):
        assert (tmp_path / "cold" / name).read_bytes() == (tmp_path / "forked" / name).read_bytes()


def test_a_command_that_is_handed_over_imports_little():
    """Its start is half of what it was; a study's every step pays for it."""
    code = "import eqco.__main__, sys; print(*{m.partition('.')[0] for m in sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    imported = set(found.stdout.split())
    assert {"eqco", "socket"} <= imported
    assert not imported & {"dataclasses", "inspect", "subprocess", "tempfile", "pydantic", "torch"}


def test_errors_and_exit_codes_come_through(server, digits, tmp_path):
    done = subprocess.run(
        [*command(tmp_path, digits), "--expect", "0"], env=server, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "has changed since the grid was planned" in done.stderr
    usage = subprocess.run(
        [sys.executable, "-m", "eqco", "nonsense"], env=server, capture_output=True, text=True
    )
    assert usage.returncode == 2
    assert "No such command 'nonsense'" in usage.stderr


def test_the_folder_and_the_environment_are_the_commands(server, tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY.read_text())
    done = subprocess.run(
        [sys.executable, "-m", "eqco", "prepare", "tiny.yaml", "--out", "here"],
        env=server,
        cwd=tmp_path,
    )
    assert done.returncode == 0
    assert (tmp_path / "here" / "MANIFEST.json").exists()


@pytest.fixture
def running(server, digits, tmp_path):
    """A command that trains for minutes, once its fork has begun to."""
    text = TINY.read_text().replace("epochs: 1\n", "epochs: 100000\n")
    (tmp_path / "long.yaml").write_text(text)
    arguments = command(tmp_path / "out", digits)
    arguments[4] = str(tmp_path / "long.yaml")
    process = subprocess.Popen(arguments, env=server, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("epoch 1/")
    yield process
    process.kill()
    process.wait()


def test_a_signal_reaches_the_fork(running):
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=30) == 75  # saved by the fork: run again to go on


def test_the_fork_ends_with_a_command_that_was_killed(running):
    stream = running.stdout
    running.kill()
    running.wait()
    deadline = time.monotonic() + 30
    # the fork holds the other end of the pipe: it closes when the fork has ended
    while stream.readline():
        assert time.monotonic() < deadline


def test_the_server_ends_with_its_starter_and_a_training_saves_and_stops(digits, tmp_path):
    """When Snakemake is killed, nobody waits for the cell any more."""
    text = TINY.read_text().replace("epochs: 1\n", "epochs: 100000\n")
    (tmp_path / "long.yaml").write_text(text)
    arguments = command(tmp_path / "out", digits)
    arguments[4] = str(tmp_path / "long.yaml")
    # the one that starts the server and the command, as Snakemake does, and is killed
    code = (
        "import os, subprocess, sys; from eqco import forkserver\n"
        "forkserver.start(); print(os.environ['EQCO_FORKSERVER'], flush=True)\n"
        "subprocess.run(sys.argv[1:])"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert starter.stdout is not None
    folder = Path(starter.stdout.readline().strip()).parent
    assert folder.exists()
    assert starter.stdout.readline().startswith("epoch 1/")
    starter.kill()
    told = starter.stdout.read()  # until all that write to it have ended
    assert "stopped by SIGTERM at step" in told
    assert list((tmp_path / "out" / "state").rglob("step-*.safetensors"))
    deadline = time.monotonic() + 60
    while folder.exists():  # the server removes it when it ends
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_without_a_server_the_command_runs_as_ever(digits, tmp_path):
    environment = {**os.environ, forkserver.VARIABLE: str(tmp_path / "nobody")}
    done = subprocess.run(
        [*command(tmp_path, digits), "--expect", "0"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
