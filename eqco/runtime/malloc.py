"""The C library's allocator: memory that a step frees is kept for the next one.

glibc gives large blocks back to the system at once, and a fresh page costs more than a pass over
it: without this a step of ResNet-18 on a CPU takes 1.17 times as long (benchmarks/records.md).
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """From here on, in this process; where the C library is another, nothing happens."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_MMAP_THRESHOLD, 2**30)  # bytes, from which a block is mapped for itself
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # bytes free at the end of the heap, the most there can be
