"""The lock between processes: one owner, and none once the owner is dead."""

import os
import signal
import subprocess
import sys

import pytest

from eqco.errors import InputError
from eqco.runtime.lock import hold, is_held

OWNER = """
import sys, time
from pathlib import Path
from eqco.runtime.lock import hold
with hold(Path(sys.argv[1]), wait=True):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path):
    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", OWNER, str(tmp_path / "folder" / "lock")]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    started: list[subprocess.Popen[str]] = []
    yield start
    for process in started:
        process.kill()
        process.wait()


def test_another_process_is_refused_with_the_owners_name(owner, tmp_path):
    process = owner()
    assert process.stdout.readline() == "held\n"
    with (
        pytest.raises(InputError, match=rf"lock: is held by process {process.pid} on "),
        hold(tmp_path / "folder" / "lock", wait=False),
    ):
        pass


def test_a_killed_owner_holds_nothing(owner, tmp_path):
    first = owner()
    assert first.stdout.readline() == "held\n"
    second = owner()
    assert "waiting for process" in second.stderr.readline()
    os.kill(first.pid, signal.SIGKILL)
    assert second.stdout.readline() == "held\n"
    second.kill()
    second.wait()
    with hold(tmp_path / "folder" / "lock", wait=False):
        pass


def test_others_see_whether_it_is_held(owner, tmp_path):
    process = owner()
    assert process.stdout.readline() == "held\n"
    lock = tmp_path / "folder" / "lock"
    assert is_held(lock)
    process.kill()
    process.wait()
    assert not is_held(lock)


def test_it_is_given_up_at_the_end_of_the_block(tmp_path):
    for _ in range(2):
        with hold(tmp_path / "lock", wait=False):
            assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
