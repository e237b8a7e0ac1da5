"""Damaged files of every kind: refused in one line, never a crash, a hang or a wrong result.

EQCO_SEED repeats a run. The sizes are those of the digits; memory is measured on larger files.
"""

import gzip
import os
import random
import subprocess
import sys
from pathlib import Path

import public
import pytest
import torch

from eqco.data import archives
from eqco.data import packed as data
from eqco.errors import InputError
from eqco.store import cells as results
from eqco.store.checkpoint import Checkpoints, State

SEED = int(os.environ.get("EQCO_SEED", random.SystemRandom().randrange(10**6)))


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Flip bits, cut, repeat, insert or replace; more often in the head, where the structure is."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        end = len(changed) if chance.random() < 0.5 else min(len(changed), 600)
        at = chance.randrange(max(end, 1))
        match chance.randrange(6):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << chance.randrange(8)
            case 1:
                del changed[at:]
            case 2:
                changed[at:at] = chance.randbytes(chance.choice((1, 8, 100)))
            case 3:
                changed[at : at + 8] = chance.choice(
                    (bytes(8), b"\xff" * 8, (2**62).to_bytes(8, "little"), b"[[[[[[[[")
                )
            case 4:
                del changed[at : at + chance.choice((1, 10, 1000))]
            case 5:
                changed += changed[at : at + 1000]
    return bytes(changed)


def is_one_line(error: InputError) -> bool:
    return "\n" not in str(error)


@pytest.fixture
def chance() -> random.Random:
    print(f"EQCO_SEED={SEED}")  # shown when it fails
    return random.Random(SEED)


@pytest.fixture(params=[300, pytest.param(3_000, marks=pytest.mark.slow)])
def cases(request) -> int:
    """The damaged files of each of four readers."""
    return request.param


@pytest.fixture
def packed(digits, tmp_path) -> Path:
    for name in ("MANIFEST.json", "train.safetensors", "test.safetensors"):
        (tmp_path / name).write_bytes((digits / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_public_files(name, chance, cases, tmp_path):
    """A block of the archive is changed inside an intact gzip, or Matlab's file as it is."""
    splits = [public.random_split(10, 10, seed) for seed in (0, 1)]
    getattr(public, name)(tmp_path, *splits)
    if name == "cifar10":
        path, read = tmp_path / "cifar-10-binary.tar.gz", archives.cifar10
        whole = gzip.decompress(path.read_bytes())
    else:
        path, read = tmp_path / "train_32x32.mat", archives.svhn
        whole = path.read_bytes()
    refused = 0
    for _ in range(cases):
        at = 512 * chance.randrange(len(whole) // 512)
        changed = whole[:at] + mutate(whole[at : at + 512], chance) + whole[at + 512 :]
        path.write_bytes(gzip.compress(changed, 1) if name == "cifar10" else changed)
        try:
            read(path)
        except InputError as error:
            if not is_one_line(error):
                pytest.fail(str(error))
            refused += 1
    assert refused


@pytest.mark.parametrize("name", ["MANIFEST.json", "test.safetensors"])
def test_packed_data(packed, chance, cases, name):
    path = packed / name
    whole, expected = path.read_bytes(), data.load(packed, "test")
    manifest = data.read_manifest(packed)
    refused = 0
    for _ in range(cases):
        path.write_bytes(mutate(whole, chance))
        try:
            found = data.load(packed, "test")
        except InputError as error:
            refused += is_one_line(error)
        else:  # what was changed has no meaning, as a space in JSON
            assert all(torch.equal(found[key], expected[key]) for key in expected)
            assert data.read_manifest(packed) == manifest
    assert refused > 0.9 * cases


def test_checkpoints(tmp_path, chance, cases):
    checkpoints = Checkpoints(tmp_path, {"config_hash": "0" * 16})
    tensors = {f"model.{i}": torch.randn(40, i + 1) for i in range(20)}
    checkpoints.save(State(1, tensors, {"history": []}))
    checkpoints.save(State(2, tensors, {"history": []}))
    newest = max(tmp_path.iterdir())
    whole = newest.read_bytes()
    for _ in range(cases):
        content = mutate(whole, chance)
        newest.write_bytes(content)
        state = checkpoints.load()
        assert state is not None
        assert state.step == (2 if content == whole else 1)
        assert all(torch.equal(state.tensors[key], tensors[key]) for key in tensors)


def test_encoders(tmp_path, chance, cases):
    """Its bytes have no checksum of their own: the summary and the evaluations name it."""
    path = tmp_path / "encoder.safetensors"
    tensors = {f"backbone.{i}": torch.randn(40, i + 1) for i in range(20)}
    results.save_encoder(path, results.SavedEncoder({"cell": {}}, "digits", tensors))
    whole, refused = path.read_bytes(), 0
    for _ in range(cases):
        path.write_bytes(mutate(whole, chance))
        try:
            results.read_encoder(path)
        except InputError as error:
            refused += is_one_line(error)
    assert refused > 0


MEMORY = """
import random, resource, sys
from pathlib import Path
import numpy as np, torch
from eqco.data import packed as data
from eqco.store import cells as results
from eqco.store.checkpoint import Checkpoints, State
from eqco.errors import InputError
from safetensors.numpy import save
sys.path[:0] = sys.argv[1].split(":")
from test_fuzz import mutate
folder, chance, size = Path(sys.argv[2]), random.Random(int(sys.argv[3])), 20_000_000
checkpoints = Checkpoints(folder, {"config_hash": "0"})
checkpoints.save(State(1, {"x": torch.zeros(size // 4)}, {}))
(path,) = folder.iterdir()
encoder = folder / "encoder.safetensors"
results.save_encoder(encoder, results.SavedEncoder({}, "", {"x": torch.zeros(size // 4)}))
whole = {path: path.read_bytes(), encoder: encoder.read_bytes()}
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def mutated(file):
    file.write_bytes(mutate(whole[file], chance))
before = peak()
for _ in range(20):
    mutated(path)
    checkpoints.load()
    mutated(encoder)
    try:
        results.read_encoder(encoder)
    except InputError:
        pass
print((peak() - before) / size)
"""


def test_memory_stays_within_four_times_the_file(tmp_path, chance):
    """Beyond what the process held before; the mutation's own copies are counted too."""
    here = Path(__file__).parent
    folders = f"{here}:{here.parent}"
    command = [sys.executable, "-c", MEMORY, folders, str(tmp_path), str(SEED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 4
