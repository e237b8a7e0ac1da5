"""What K costs: python benchmarks/queue_loss.py [--negatives 16 4096 65536] [--threads 2]

InfoNCE of 256 queries (D = 128) over a queue of K keys, forward and backward, in turn: eqco's, a
plain cross-entropy over the similarities, and lightly's. Prints one JSON line for each K:
milliseconds of each, as median and range.
"""

import argparse
import time
from collections.abc import Callable

import torch
from lightly.loss import NTXentLoss
from report import report
from torch import Tensor
from torch.nn import functional as F

from eqco.losses import SharedNegatives, info_nce

B, D, TAU = 256, 128, 0.2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--negatives", type=int, nargs="+", default=[16, 4096, 65_536])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--n", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for k in arguments.negatives:
        times: dict[str, list[float]] = {}
        q, key = (F.normalize(torch.randn(B, D)) for _ in range(2))
        q.requires_grad_()
        sides = losses(q, key, F.normalize(torch.randn(k, D)))
        for run in range(arguments.n + 1):
            for name, loss in sides.items():
                q.grad = None
                start = time.perf_counter()
                loss().backward()
                if run:  # the first is the warm-up
                    times.setdefault(name, []).append(1000 * (time.perf_counter() - start))
        report({"negatives": k, "threads": arguments.threads, "unit": "ms"}, times)


def losses(q: Tensor, key: Tensor, queue: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The same loss by each implementation, from queries, their keys, and the queue."""
    lightly = NTXentLoss(temperature=TAU, memory_bank_size=(len(queue), D))

    def eqco() -> Tensor:
        return info_nce((q * key).sum(1), SharedNegatives(q, queue), temperature=TAU).mean()

    def cross_entropy() -> Tensor:
        logits = torch.cat([(q * key).sum(1, keepdim=True), q @ queue.T], dim=1) / TAU
        return F.cross_entropy(logits, torch.zeros(B, dtype=torch.long))

    return {"eqco": eqco, "cross_entropy": cross_entropy, "lightly": lambda: lightly(q, key)}


if __name__ == "__main__":
    main()
