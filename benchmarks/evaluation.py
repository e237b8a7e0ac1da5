"""CPU seconds of a cell's training and of each part of its evaluation.

Trains the first ``--n`` cells of a study, and evaluates each, in one process; no program's start
is in the seconds. Prints one JSON line: of ``pretrain``, ``features``, ``linear_lbfgs``,
``linear``, ``knn`` and ``geometry``; and the median over cells of the linear protocols' share,
their features included, of the training's.
"""

import statistics
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from benchmarks._measure import arguments, packed, report
from eqco.data.packed import dataset_hash, read_manifest
from eqco.evaluation.features import extract
from eqco.evaluation.geometry import geometry
from eqco.evaluation.knn import knn
from eqco.evaluation.linear import linear
from eqco.evaluation.logistic import linear_lbfgs
from eqco.store.cells import SavedEncoder
from eqco.study.grid import Grid
from eqco.study.load import load_study
from eqco.training.loop import pretrain

P, T = ParamSpec("P"), TypeVar("T")


def main() -> None:
    options = arguments(__doc__, n=5, threads=1, study=True).parse_args()
    torch.set_num_threads(options.threads)
    study, device = load_study(options.study), torch.device("cpu")
    settings, values = study.evaluate, dict[str, list[float]]()

    def timed(name: str, work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        start = time.process_time()
        done = work(*given, **named)
        values.setdefault(name, []).append(time.process_time() - start)
        return done

    with packed(study.data) as data:
        dataset = dataset_hash(read_manifest(data))
        for one in list(Grid(study).cells.values())[: options.n]:
            cell = one.cell
            method, _ = timed("pretrain", pretrain, study, cell, data, device=device)
            tensors = method.encoder.state_dict()
            saved = SavedEncoder(study.resolve(cell), dataset, tensors)
            features = timed("features", extract, saved, data, device=device)
            assert settings.linear_lbfgs, "a study with this protocol"
            timed("linear_lbfgs", linear_lbfgs, features, settings.linear_lbfgs, cell.seed)
            timed("linear", linear, features, settings.linear, cell.seed)
            timed("knn", knn, features, settings.knn)
            timed("geometry", geometry, features, saved, study.data, data, device)
    parts = (values[name] for name in ("features", "linear_lbfgs", "linear", "pretrain"))
    shares = [sum(evaluated) / trained for *evaluated, trained in zip(*parts, strict=True)]
    told = {"study": study.study, "threads": options.threads, "unit": "s"}
    report(told, values, linear_eval_of_pretrain=round(statistics.median(shares), 3))
