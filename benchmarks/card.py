"""Ceilings of a GPU: TFLOP/s of a large matrix product, GB/s of a copy on the device.

Prints one JSON line each: of a product of 8192 x 8192 matrices of random numbers in bfloat16 and in
float32, as torch computes it by default, and of a copy of 4 GB, whose bytes count twice.
"""

import time
from collections.abc import Callable

import torch

from benchmarks._measure import arguments, report, wait

SIDE = 8192
BYTES = 4 * 10**9


def main() -> None:
    parser = arguments(__doc__, n=5)
    parser.set_defaults(device="cuda")
    options = parser.parse_args()
    device = torch.device(options.device)
    for dtype in (torch.bfloat16, torch.float32):
        runs = [product_tflops(device, dtype) for _ in range(options.n)]
        report({"dtype": str(dtype), "unit": "TFLOP/s"}, {"product": runs})
    source = torch.ones(BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    runs = [2 * BYTES / 1e9 / seconds(device, lambda: target.copy_(source), 10) for _ in range(5)]
    report({"bytes": BYTES, "unit": "GB/s"}, {"copy": runs})


def product_tflops(device: torch.device, dtype: torch.dtype) -> float:
    """TFLOP/s of a product of two SIDE x SIDE matrices."""
    a, b = torch.randn(2, SIDE, SIDE, device=device, dtype=dtype)
    return 2 * SIDE**3 / 1e12 / seconds(device, lambda: a @ b, 10)


def seconds(device: torch.device, work: Callable[[], object], times: int) -> float:
    """Mean seconds of ``work``, which has run three times before."""
    for _ in range(3):
        work()
    wait(device)
    start = time.perf_counter()
    for _ in range(times):
        work()
    wait(device)
    return (time.perf_counter() - start) / times
