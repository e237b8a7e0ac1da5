"""Milliseconds of the loss over a queue of K keys, beside other implementations.

InfoNCE of 256 queries (D = 128), forward and backward, in turn: eqco's, a plain cross-entropy over
the similarities, and lightly's. Prints one JSON line per K: the median and range of each.
"""

import time
from collections.abc import Callable

import torch
from lightly.loss import NTXentLoss
from torch import Tensor
from torch.nn import functional as F

from benchmarks._measure import arguments, report
from eqco.losses import SharedNegatives, info_nce

B, D, TAU = 256, 128, 0.2


def main() -> None:
    parser = arguments(__doc__, n=7, threads=2)
    parser.add_argument("--negatives", type=int, nargs="+", default=[16, 4096, 65_536])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for k in options.negatives:
        times: dict[str, list[float]] = {}
        q, key = (F.normalize(torch.randn(B, D)) for _ in range(2))
        q.requires_grad_()
        sides = losses(q, key, F.normalize(torch.randn(k, D)))
        for run in range(options.n + 1):
            for name, loss in sides.items():
                q.grad = None
                start = time.perf_counter()
                loss().backward()
                if run:  # the first is the warm-up
                    times.setdefault(name, []).append(1000 * (time.perf_counter() - start))
        report({"negatives": k, "threads": options.threads, "unit": "ms"}, times)


def losses(q: Tensor, key: Tensor, queue: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The same loss by each implementation, from queries, their keys, and the queue."""
    lightly = NTXentLoss(temperature=TAU, memory_bank_size=(len(queue), D))

    def eqco() -> Tensor:
        return info_nce((q * key).sum(1), SharedNegatives(q, queue), temperature=TAU).mean()

    def cross_entropy() -> Tensor:
        logits = torch.cat([(q * key).sum(1, keepdim=True), q @ queue.T], dim=1) / TAU
        return F.cross_entropy(logits, torch.zeros(B, dtype=torch.long))

    return {"eqco": eqco, "cross_entropy": cross_entropy, "lightly": lambda: lightly(q, key)}
