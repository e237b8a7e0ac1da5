"""Memory that was freed is used again, in a process of its own: the setting is a process's."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from eqco.runtime.malloc import keep_freed_memory

def faults(rounds):  # pages that rounds of the same allocations ask for, after the first ones
    for step in range(rounds):
        if step == rounds - 2:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        tensors = [torch.ones(2**24) for _ in range(3)]  # 64 MiB each
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(3))
keep_freed_memory()
print(faults(12))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_freed_memory_is_used_again():
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    default, kept = map(int, done.stdout.split())
    assert kept < default / 2
