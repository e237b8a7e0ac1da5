"""Seconds of each command of a small cell, with and without the fork server.

Runs the commands of one cell of the study, in turn as processes of their own and as forks of the
fork server, n times each. Prints one JSON line: for both, the wall seconds of every command, and of
``schema``, which does nothing but start.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks._measure import arguments, packed, report
from eqco import forkserver
from eqco.study.grid import Grid
from eqco.study.load import load_study


def main() -> None:
    options = arguments(__doc__, n=5, threads=1, study=True).parse_args()
    study = load_study(options.study)
    cell = list(Grid(study).cells)[-1]
    alone = dict(os.environ)
    forkserver.start()
    forked = dict(os.environ)
    with packed(study.data) as data, tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/cell"
        places = ["--data", str(data), "--threads", str(options.threads)]
        evaluation = ["--encoder", f"{out}/encoder.safetensors", *places, "--out"]
        commands = {
            "start": ["schema"],
            "pretrain": ["pretrain", "--cell", cell, *places, "--out", out],
            "linear-eval": ["linear-eval", *evaluation, f"{out}/linear.json"],
            "knn-eval": ["knn-eval", *evaluation, f"{out}/knn.json"],
        }
        run(["schema"], forked)  # waits for the server
        times: dict[str, list[float]] = {}
        for _ in range(options.n):
            for kind, environment in (("process", alone), ("fork", forked)):
                shutil.rmtree(out, ignore_errors=True)  # a finished cell is not trained again
                for name, (command, *rest) in commands.items():
                    file = [] if command == "schema" else [str(options.study)]
                    seconds = run([command, *file, *rest], environment)
                    times.setdefault(f"{kind} {name}", []).append(seconds)
    share = statistics.median(times["fork linear-eval"]) / statistics.median(times["fork pretrain"])
    settings = {"study": study.study, "unit": "s"}
    report(settings, times, linear_eval_of_pretrain=round(share, 3))


def run(arguments: list[str], environment: dict[str, str]) -> float:
    """Wall seconds of ``python -m eqco`` with these arguments."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "eqco", *arguments]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start
