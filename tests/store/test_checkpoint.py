"""Checkpoints: whole or refused; and a training that goes on ends in the same bytes."""

import errno
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from helpers import TINY, cells, repeated, with_values
from hypothesis import given, settings
from hypothesis import strategies as st

from eqco import forkserver
from eqco.errors import InputError, Interrupted
from eqco.runtime.signals import Stop, interrupted, stop_on_signals
from eqco.store import checkpoint
from eqco.store.checkpoint import Checkpoints, State
from eqco.study.methods import METHODS
from eqco.training.loop import pretrain

pytestmark = pytest.mark.usefixtures("fork_server")
CPU = torch.device("cpu")
MADE_BY = {"config_hash": "0123456789abcdef", "dataset": "digits"}


def a_state(step: int) -> State:
    generator = torch.Generator().manual_seed(step)
    tensors = {"x": torch.randn(3, 4, generator=generator), "n": torch.tensor(step)}
    return State(step, tensors, {"history": [{"loss": 0.1 * step}], "seconds": 1 / 3})


def assert_same(one: State | None, other: State) -> None:
    assert one is not None
    assert (one.step, one.values) == (other.step, other.values)
    assert one.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


@pytest.fixture
def checkpoints(tmp_path) -> Checkpoints:
    return Checkpoints(tmp_path / "state", MADE_BY)


def files(checkpoints: Checkpoints) -> list[Path]:
    return sorted(checkpoints.folder.iterdir())


def test_none_where_there_is_none(checkpoints):
    assert checkpoints.load() is None


def test_the_newest_is_read_and_the_one_before_is_kept(checkpoints):
    for step in (1, 20, 3_000):
        checkpoints.save(a_state(step))
        assert_same(checkpoints.load(), a_state(step))
    assert [path.name[:14] for path in files(checkpoints)] == ["step-000000020", "step-000003000"]
    checkpoints.remove()
    assert files(checkpoints) == []


@given(st.data())
@settings(max_examples=200)
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path_factory, data):
    checkpoints = Checkpoints(tmp_path_factory.mktemp("damaged"), MADE_BY)
    checkpoints.save(a_state(1))
    checkpoints.save(a_state(2))
    newest = files(checkpoints)[-1]
    content = bytearray(newest.read_bytes())
    if data.draw(st.booleans(), "cut off"):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    newest.write_bytes(content)
    assert_same(checkpoints.load(), a_state(1))


def test_damage_is_told(checkpoints, capsys):
    checkpoints.save(a_state(1))
    (path,) = files(checkpoints)
    path.write_bytes(path.read_bytes()[:-1])
    assert checkpoints.load() is None
    assert capsys.readouterr().err == f"{path}: is damaged, an older one is used\n"


class Disk:
    """Stands between a writer and the system: writes are short, and one operation fails."""

    def __init__(self, monkeypatch, operation: str, at: int, error: int) -> None:
        self.operation, self.left, self.error = operation, at, error
        monkeypatch.setattr(Path, "open", lambda path, mode: self.opened(path, mode))
        for place, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
            plain = getattr(place, name)
            monkeypatch.setattr(place, name, self.failing(name, plain))

    def failing(self, name: str, plain):
        def call(*args, **kwargs):
            self.passes(name)
            return plain(*args, **kwargs)

        return call

    def passes(self, name: str) -> None:
        if name == self.operation:
            self.left -= 1
            if self.left == 0:
                raise OSError(self.error, os.strerror(self.error))

    def opened(self, path: Path, mode: str) -> io.BufferedWriter:
        disk = self

        class Raw(io.FileIO):
            def write(self, data) -> int:
                part = memoryview(data)[:100]
                if disk.operation == "write" and disk.left == 1:
                    super().write(part[:37])  # what reached the disk before the error
                disk.passes("write")
                return super().write(part)

        self.passes("open")
        return io.BufferedWriter(Raw(path, mode), buffer_size=64)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("operation", ["open", "write", "fsync", "replace", "unlink", "none"])
def test_a_fault_in_any_operation_leaves_a_state_that_resumes(checkpoints, operation, error):
    for step in (1, 2):
        checkpoints.save(a_state(step))
    size = files(checkpoints)[-1].stat().st_size
    for at in range(1, size // 100 + 2 if operation == "write" else 2):
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, operation, at, error)
            if operation == "none":
                checkpoints.save(a_state(3))
            else:
                with pytest.raises(OSError, match=re.escape(os.strerror(error))):
                    checkpoints.save(a_state(3))
        found = checkpoints.load()
        # a file that cannot be removed is an error too, when the new one is safe
        assert_same(found, a_state(3 if operation in ("unlink", "none") else 2))
        assert all(path.name.startswith("step-") for path in files(checkpoints)) or (
            operation == "unlink"
        )
    checkpoints.save(a_state(4))
    assert_same(checkpoints.load(), a_state(4))


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({**MADE_BY, "config_hash": "f" * 16}, "config_hash: 0123456789abcdef: this run needs ff"),
        ({**MADE_BY, "dataset": "others"}, "dataset: digits: this run needs others"),
    ],
)
def test_another_run_is_refused_by_name(checkpoints, other, named):
    checkpoints.save(a_state(1))
    with pytest.raises(InputError, match=named):
        Checkpoints(checkpoints.folder, other).load()


def test_another_format_is_refused_by_name(checkpoints, monkeypatch):
    checkpoints.save(a_state(1))
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    with pytest.raises(
        InputError, match=r"safetensors: format: 1: this run needs 2; delete .*state"
    ):
        Checkpoints(checkpoints.folder, MADE_BY).load()


def test_other_files_are_left_alone(checkpoints):
    checkpoints.save(a_state(1))
    for name in ("lock", ".step-1.tmp", "step-1.safetensors", "encoder.safetensors"):
        (checkpoints.folder / name).write_text("other")
    assert_same(checkpoints.load(), a_state(1))
    checkpoints.remove()
    assert len(files(checkpoints)) == 4


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"])
def test_a_signal_sets_a_flag_within_the_block_alone(name):
    number = signal.Signals[name]
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        message = str(interrupted(stop.asked_by, 3, 10))
        assert message.startswith(f"stopped by {name} at step 3 of 10, saved")
    assert signal.getsignal(number) == before


def test_a_signal_that_comes_after_the_stop_does_not_change_the_exit_code():
    program = """
import os, sys
from eqco.errors import Interrupted
from eqco.runtime.signals import SIGNALS, stop_on_signals
try:
    with stop_on_signals():
        raise Interrupted
except Interrupted:
    for number in SIGNALS:
        os.kill(os.getpid(), number)
    sys.exit(Interrupted.EXIT_CODE)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == Interrupted.EXIT_CODE


class StopAt(Stop):
    """Asks to stop at the n-th time that it is looked at."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __bool__(self) -> bool:
        self.count -= 1
        self.asked_by = signal.SIGUSR1
        return self.count < 0


@pytest.mark.parametrize("method", [repeated(name) for name in METHODS])
def test_stopped_anywhere_it_ends_in_the_same_bytes(method, study_with, digits, tmp_path):
    """Every method: queue, key encoder, support set, momentum, the epoch's loss, history."""
    able = METHODS[method].symmetric
    study = study_with(
        {
            "grid.0.methods": [method],
            "grid.0.negatives": [16],
            "grid.0.seeds": [3],
            "pretrain.epochs": 2,
            "pretrain.queue": 600 if method in ("moco", "nnclr") else None,
            "pretrain.symmetric": able,
            "pretrain.sampling": "independent",
        }
    )
    cell = next(iter(cells(study).values()))
    whole, history = pretrain(study, cell, digits, device=CPU)
    checkpoints = Checkpoints(tmp_path, MADE_BY)
    stops = 0
    while True:
        try:
            parts, told = pretrain(
                study, cell, digits, device=CPU, checkpoints=checkpoints, stop=StopAt(stops % 3)
            )
            break
        except Interrupted:
            stops += 1
    assert stops >= 4
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name
    for one, other in zip(history, told, strict=True):
        assert one.pop("images_per_s") > 0
        assert other.pop("images_per_s") > 0
        assert one == other


def test_a_loss_that_is_not_finite_is_never_saved(study_with, digits, tmp_path):
    study = study_with({"pretrain.lr": 1e30, "pretrain.epochs": 2})
    cell = next(iter(cells(study).values()))
    with pytest.raises(InputError, match=r"the loss is not finite from step \d+ of 10 on") as error:
        pretrain(
            study,
            cell,
            digits,
            device=CPU,
            checkpoints=Checkpoints(tmp_path, MADE_BY),
            seconds_between_checkpoints=0,
        )
    first = int(str(error.value).split("from step ")[1].split()[0])
    assert [int(path.name[5:14]) for path in sorted(tmp_path.glob("step-*"))] == [
        step for step in (first - 2, first - 1) if step > 0
    ]


CELL = "method~simo/negatives~16/margin~eqco/seed~0"


@pytest.fixture
def command(tmp_path, digits, processes):
    """Start the training of one cell as a user does; it saves after every step.

    With words before it, or ``cold``, the command is the process that trains, without a server.
    """
    changes = {"grid.0.negatives": [16], "grid.0.seeds": [0], "pretrain.epochs": 25}
    study = tmp_path / "one.yaml"
    study.write_text(yaml.safe_dump(with_values(yaml.safe_load(TINY.read_text()), changes)))

    def start(out: str, *before: str, cold: bool = False) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-m", "eqco", "pretrain", study, "--cell", CELL]
        arguments += ["--data", digits, "--threads", "1", "--out", tmp_path / out]
        environment = {**os.environ, "EQCO_CHECKPOINT_SECONDS": "0"}
        if cold or before:
            del environment[forkserver.VARIABLE]
        process = subprocess.Popen(
            [*before, *map(str, arguments)],
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        processes.append(process)
        return process

    return start


def newest(folder: Path) -> int:
    return max((int(path.name[5:14]) for path in folder.rglob("step-*.safetensors")), default=0)


def wait_for_a_checkpoint(folder: Path, after: int = 0) -> int:
    """The newest step, once there is one past ``after``."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if (step := newest(folder)) > after:
            return step
        time.sleep(0.02)
    raise AssertionError("no checkpoint")


def test_signals_and_kills_end_in_the_same_encoder(command, tmp_path):
    assert command("whole").wait() == 0
    for name in ("SIGTERM", "SIGKILL", "SIGINT", "SIGUSR1", "SIGUSR2"):
        step = newest(tmp_path / "parts")
        process = command("parts", cold=name in ("SIGTERM", "SIGKILL"))
        wait_for_a_checkpoint(tmp_path / "parts", after=step)
        process.send_signal(signal.Signals[name])
        code = process.wait(timeout=60)
        if name == "SIGKILL":
            assert code == -signal.SIGKILL
        else:
            assert code == Interrupted.EXIT_CODE
            assert f"stopped by {name} at step" in process.stderr.read()
        assert not (tmp_path / "parts" / "encoder.safetensors").exists()
    assert command("parts").wait() == 0
    for name in ("encoder.safetensors", "config.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert list((tmp_path / "parts").rglob("step-*")) == []


def test_a_full_disk_is_told_and_leaves_the_last_checkpoint(command, tmp_path):
    """A limit on the size of files stands for the disk."""
    process = command("out")
    wait_for_a_checkpoint(tmp_path / "out")
    process.terminate()
    assert process.wait() == 75
    before = {path: path.read_bytes() for path in tmp_path.glob("out/state/**/step-*")}
    process = command("out", "prlimit", "--fsize=4096")
    assert process.wait() == 1
    error = process.stderr.read()
    assert re.fullmatch(r"eqco: \S+/step-\d+-\w+.safetensors: File too large\n", error), error
    assert {path: path.read_bytes() for path in tmp_path.glob("out/state/**/step-*")} == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["state"]


def test_data_that_changes_under_a_training_is_noticed(command, digits, tmp_path):
    process = command("out")
    wait_for_a_checkpoint(tmp_path / "out")
    file = digits / "train.safetensors"
    whole = file.read_bytes()
    try:
        with file.open("r+b") as opened:
            opened.seek(-1000, os.SEEK_END)
            opened.write(bytes(1000))
        assert process.wait() == 1
        assert "train.safetensors: is damaged: its sha256" in process.stderr.read()
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["state"]
        assert not list(tmp_path.glob("out/state/**/step-*"))
    finally:
        file.write_bytes(whole)


def test_two_processes_on_one_cell_train_it_once(command, tmp_path):
    first = command("out")
    wait_for_a_checkpoint(tmp_path / "out")
    second = command("out")
    assert "waiting for process" in second.stderr.readline()
    assert first.wait() == second.wait() == 0
    summary = tmp_path / "out" / "pretrain.json"
    made = summary.read_bytes()
    summary.unlink()
    assert command("out").wait() == 0  # published again, not trained again
    assert summary.read_bytes() == made
    assert summary.stat().st_nlink == 2
