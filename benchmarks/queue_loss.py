"""Milliseconds of the loss over a queue of K keys, beside other implementations.

InfoNCE of 256 queries (D = 128), forward and backward, in turn: eqco's, a plain cross-entropy over
the similarities, and, where it is installed, lightly's. Prints one JSON line per K: the median and
range of each.
"""

import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks._measure import arguments, report, wait
from eqco.losses import SharedNegatives, info_nce

B, D, TAU = 256, 128, 0.2


def main() -> None:
    parser = arguments(__doc__, n=7, threads=2, device=True)
    parser.add_argument("--negatives", type=int, nargs="+", default=[16, 4096, 65_536])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    torch.set_default_device(device)
    for k in options.negatives:
        times: dict[str, list[float]] = {}
        q, key = (F.normalize(torch.randn(B, D)) for _ in range(2))
        q.requires_grad_()
        sides = losses(q, key, F.normalize(torch.randn(k, D)))
        for run in range(options.n + 1):
            for name, loss in sides.items():
                q.grad = None
                wait(device)
                start = time.perf_counter()
                loss().backward()
                wait(device)
                if run:  # the first is the warm-up
                    times.setdefault(name, []).append(1000 * (time.perf_counter() - start))
        settings = {"negatives": k, "device": options.device, "threads": options.threads}
        report({**settings, "unit": "ms"}, times)


def losses(q: Tensor, key: Tensor, queue: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The same loss by each implementation, from queries, their keys, and the queue."""

    def eqco() -> Tensor:
        return info_nce((q * key).sum(1), SharedNegatives(q, queue), temperature=TAU).mean()

    def cross_entropy() -> Tensor:
        logits = torch.cat([(q * key).sum(1, keepdim=True), q @ queue.T], dim=1) / TAU
        return F.cross_entropy(logits, torch.zeros(B, dtype=torch.long))

    sides = {"eqco": eqco, "cross_entropy": cross_entropy}
    if find_spec("lightly"):
        from lightly.loss import NTXentLoss

        lightly = NTXentLoss(temperature=TAU, memory_bank_size=(len(queue), D))
        sides["lightly"] = lambda: lightly(q, key)
    return sides
