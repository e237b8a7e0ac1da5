"""Memory that was freed is used again, in processes of their own: the setting is a process's."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from eqco.runtime.malloc import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
for step in range(8):
    if step == 5:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(2**24) for _ in range(3)]  # 64 MiB each
    del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Pages that rounds of the same allocations ask the system for, after the first ones."""
    command = [sys.executable, "-c", PROGRAM, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_freed_memory_is_used_again():
    assert faults("keep") < faults("default") / 2
