"""Gain of shared views: cells of one seed that train in lockstep in one process.

The views of a step are a function of seed and step, so all cells of a seed have the same. Here 1,
2, 5, 10 of them train on one set of views, decoded and augmented once: the training loop's own
steps, in turn. Nothing else is shared, and two steps are first compared with those of the cells
alone, which end in the same bytes. All of it, decoding too, is done by one thread of this process,
so that its CPU seconds are all there are. Recipes:

- ``fashion-mnist``: that study's, on noise; ``cifar10``: weighting-or-rate-cifar's, on noise;
- ``jpegs``: params/moco-v2-imagenet.yaml's augmentation of JPEGs as those of the program loader,
  and SiMo on a ResNet-18 in place of its method and network.

The numbers of cells are measured in turn, ``--n`` times ``--steps`` steps. Prints one JSON line:

- ``views``: CPU seconds of a step's views; of JPEGs also ``decoded``, the part of the workers;
- ``rest_<N>``: CPU seconds of a step of N cells without them, by the cell;
- ``pairs_per_s_<N>``: pairs of all N cells per CPU second, so per core;
- ``gain_<N>``: this by that of one cell, the median over rounds; and ``peak_mb_<N>``.
"""

import resource
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks._measure import ROOT, arguments, draw_jpegs, noise, report
from eqco.data import sources
from eqco.data.jpegs import Jpegs
from eqco.data.views import Views
from eqco.study.grid import Grid
from eqco.study.load import parse_study
from eqco.study.study import Study
from eqco.training.step import Training

RECIPES = {
    "fashion-mnist": "fashion-mnist",
    "cifar10": "weighting-or-rate-cifar",
    "jpegs": "moco-v2-imagenet",
}
KS = [1, 2, 3, 4, 5]  # with two margins each, ten cells of a seed


class Shared:
    """The views of several trainings: those of the latest step are kept for the others.

    Attributes:
        own: the views of one training.
        seconds: CPU seconds of each step's views since the list was cleared.
    """

    def __init__(self, views: Views) -> None:
        self.own = views
        self._latest: tuple[int, list[torch.Tensor]] = -1, []
        self.seconds: list[float] = []

    def __call__(self, step: int) -> list[torch.Tensor]:
        if step != self._latest[0]:
            start = time.process_time()
            self._latest = step, self.own(step)
            self.seconds.append(time.process_time() - start)
        return self._latest[1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)


def main() -> None:
    parser = arguments(__doc__, n=5)
    parser.add_argument("--recipe", choices=RECIPES, required=True)
    parser.add_argument("--batch", type=int, help="images of a step (the recipe's; 16 of jpegs)")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--cells", type=int, nargs="+", default=[1, 2, 5, 10])
    options = parser.parse_args()
    torch.set_num_threads(1)
    with recipe(options) as (study, data):
        cells = [one.cell for one in Grid(study).cells.values()]

        def training(i: int) -> Training:
            made = Training(study, cells[i], data, torch.device("cpu"))
            views = made.views
            if isinstance(views.images, Jpegs):  # workers' seconds would not be this process's
                views._decoded = views.__getitem__
            return made

        measure(options, training)


@contextmanager
def recipe(options: Namespace) -> Iterator[tuple[Study, Path]]:
    """A study of ten cells of one seed, and the folder of its packed images."""
    name = RECIPES[options.recipe]
    values = yaml.safe_load((ROOT / "params" / f"{name}.yaml").read_text())
    values = {key: values[key] for key in ("study", "data", "augment", "network", "pretrain")}
    values |= {"alpha": 256, "temperature": 0.2}
    block = {"methods": ["simo"], "negatives": KS, "margins": [0, "eqco"], "seeds": [0]}
    values["grid"] = [block]
    jpegs = options.recipe == "jpegs"
    if jpegs:
        values["network"] = {"backbone": "resnet18", "projector": [512, 128]}
        values["pretrain"] |= {"batch": 16, "queue": None}
    if options.batch:
        values["pretrain"]["batch"] = options.batch
    batch = values["pretrain"]["batch"]
    with tempfile.TemporaryDirectory() as folder:
        if jpegs:
            originals, packed = Path(folder, "originals"), Path(folder, "packed")
            draw_jpegs(originals / "train" / "class", 8 * batch)
            draw_jpegs(originals / "test" / "class", 1)
            study = parse_study(values, options.recipe)
            data = study.data.model_copy(update={"path": str(originals)})
            sources.prepare(data, packed)
            yield study.model_copy(update={"data": data}), packed
            return
    size, channels = (28, 1) if options.recipe == "fashion-mnist" else (32, 3)
    values["data"] = {"kind": "image-folder", "name": "noise", "path": ".", "size": size}
    with noise(10_000, size, channels) as packed:
        yield parse_study(values, options.recipe), packed


def check(training: Callable[[int], Training]) -> None:
    """Compare two cells in lockstep with each alone: losses and all tensors, to the byte."""
    alone = [training(i) for i in range(2)]
    losses = [[one.advance() for _ in range(2)] for one in alone]
    together = [training(i) for i in range(2)]
    share(together)
    for step in range(2):
        for i, one in enumerate(together):
            assert torch.equal(one.advance(), losses[i][step])
    for one, other in zip(alone, together, strict=True):
        tensors = other.tensors()
        for name, tensor in one.tensors().items():
            assert torch.equal(tensor, tensors[name]), name
    assert not torch.equal(losses[0][0], losses[1][0])


def share(trainings: list[Training]) -> Shared:
    """Give several trainings the views of the first."""
    views = trainings[0].views
    shared = Shared(getattr(views, "own", views))
    for one in trainings:
        one.views = shared
    return shared


def measure(options: Namespace, training: Callable[[int], Training]) -> None:
    """Run all numbers of cells in turn, and report."""
    trainings: list[Training] = []
    peak: dict[str, float] = {}
    for cells in options.cells:  # the fewest first: the peak is the process's, so far
        trainings += [training(i) for i in range(len(trainings), cells)]
        views = share(trainings)
        lockstep(trainings, 2)
        peak[f"peak_mb_{cells}"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    check(training)
    batch = trainings[0].cell.batch
    values: dict[str, list[float]] = {"views": []}
    decoded: list[float] = []
    for _ in range(options.n):
        for cells in options.cells:
            bundle = trainings[:cells]
            for one in bundle:  # of a common step; they may have done fewer than others
                one.step = trainings[0].step
            views.seconds.clear()
            seconds = lockstep(bundle, options.steps)
            made = sum(views.seconds)
            values["views"].append(made / options.steps)
            named = {
                "rest": (seconds - made) / options.steps / cells,
                "pairs_per_s": options.steps * batch * cells / seconds,
            }
            for name, value in named.items():
                values.setdefault(f"{name}_{cells}", []).append(value)
        if isinstance(views.images, Jpegs):
            start = time.process_time()
            views.own[0]
            decoded.append(time.process_time() - start)
    one = values[f"pairs_per_s_{options.cells[0]}"]
    gains = {
        f"gain_{cells}": [a / b for a, b in zip(values[f"pairs_per_s_{cells}"], one, strict=True)]
        for cells in options.cells[1:]
    }
    report(
        {"recipe": options.recipe, "batch": batch, "steps": options.steps, "threads": 1},
        values | gains | ({"decoded": decoded} if decoded else {}),
        share_of_views=round(
            statistics.median(values["views"]) / (batch / statistics.median(one)), 3
        ),
        **{name: round(mb) for name, mb in peak.items()},
    )


def lockstep(trainings: list[Training], steps: int) -> float:
    """CPU seconds of some steps of all trainings, each step of one after that of the other."""
    start = time.process_time()
    for _ in range(steps):
        for one in trainings:
            one.advance()
    return time.process_time() - start
