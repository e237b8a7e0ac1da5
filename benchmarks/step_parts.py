"""CPU seconds of each part of a training step, and of the bare networks beside it.

The step of the program ``step``, on the same images, networks and augmentation. The whole loop,
timed part by part, and its bare networks (the same passes on a fixed batch, the optimiser and the
momentum update) run in turn, ``--n`` times ``--steps`` steps each. CPU seconds of all threads; with
several, a thread that waits for another counts too. Prints one JSON line, in ms a step:

- ``views``: the order, the draws and the augmentation;
- ``encoder``, ``key_encoder``: the forward passes; ``backward``: of the encoder;
- ``similarities``: of the anchors with positives and negatives, their draw included;
- ``loss``; ``loss_backward``: back to the embeddings, through the similarities;
- ``ema``, ``optimizer``, ``queue``;
- ``rest``: all between these parts, so Python's;
- ``step`` and ``bare``: the whole of each.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from benchmarks._measure import arguments, noise, report
from benchmarks.step import NETWORKS, SIZES, bare, parts
from eqco.training.step import Training


class Clock:
    """CPU seconds by part; of a part within another, the inner one's alone count as its own."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.running = ["rest"]
        self.since = time.process_time()

    def switch(self) -> None:
        """Charge the seconds since the last switch to the part that runs."""
        now = time.process_time()
        self.seconds[self.running[-1]] += now - self.since
        self.since = now

    def mark(self, part: str) -> None:
        """Charge another part from now on."""
        self.switch()
        self.running[-1] = part

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose seconds are charged to a part."""

        def run(*arguments: Any, **named: Any) -> Any:
            self.switch()
            self.running.append(part)
            try:
                return function(*arguments, **named)
            finally:
                self.switch()
                self.running.pop()

        return run


def instrument(training: Training, clock: Clock) -> None:
    """Have a training's parts charge the clock."""
    method, losses_of, step = training.method, training._losses, training.optimizer.step

    def encode(
        view: Tensor, forward: Callable[[Tensor], Tensor] = method.encoder.forward
    ) -> Tensor:
        z = forward(view)
        z.register_hook(lambda gradient: clock.mark("backward"))
        return z

    def losses(*similarities: Any) -> Tensor:
        found = losses_of(*similarities)
        found.register_hook(lambda gradient: clock.mark("loss_backward"))
        return found

    def optimize() -> None:
        clock.mark("rest")  # the backward pass has ended
        clock.timed("optimizer", step)()

    method.encoder.forward = clock.timed("encoder", encode)
    if hasattr(method, "key_encoder"):
        method.key_encoder.forward = clock.timed("key_encoder", method.key_encoder.forward)
        method.update_key_encoder = clock.timed("ema", method.update_key_encoder)
    method.forward = clock.timed("similarities", method.forward)
    method.after_step = clock.timed("queue", method.after_step)
    training.views = clock.timed("views", training.views)
    training._losses = clock.timed("loss", losses)
    training.optimizer.step = optimize


def main() -> None:
    parser = arguments(__doc__, n=7, threads=1)
    parser.add_argument("--method", choices=("simclr", "moco", "simo"), required=True)
    parser.add_argument("--network", choices=NETWORKS, default="small")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--negatives", type=int, default=4096, help="K of moco; others use all")
    parser.add_argument("--steps", type=int, default=20)
    parser.set_defaults(precision="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    study, cell = parts(options)
    values: dict[str, list[float]] = {}
    with noise(2048, SIZES[options.network]) as folder:
        training = Training(study, cell, folder, torch.device("cpu"))
        plain = Training(study, cell, folder, torch.device("cpu"))
        with closing(bare(plain, update=True)) as steps:
            clock = Clock()
            instrument(training, clock)
            for i in range(options.n + 1):
                clock.seconds.clear()
                clock.since = time.process_time()
                for _ in range(options.steps):
                    training.advance()
                clock.switch()
                start = time.process_time()
                for _ in range(options.steps):
                    next(steps)
                found = {**clock.seconds, "step": clock.seconds.total()}
                found["bare"] = time.process_time() - start
                for name, seconds in found.items() if i else ():
                    values.setdefault(name, []).append(1000 * seconds / options.steps)
    settings = ("method", "network", "batch", "threads", "steps")
    ratios = [a / b for a, b in zip(values["bare"], values["step"], strict=True)]
    report(
        {**{name: getattr(options, name) for name in settings}, "unit": "ms"},
        values,
        of_bare=round(statistics.median(ratios), 3),
    )
