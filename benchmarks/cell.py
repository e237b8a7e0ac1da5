"""Where the time of a small cell goes: python benchmarks/cell.py [--study params/demo.yaml] [--n 5]

Runs the commands of one cell of the study, in turn as processes of their own and as forks of the
fork server, n times each. Prints one JSON line: for both, the wall seconds of every command, and of
one that does nothing but start (``schema``).
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import report

from eqco import forkserver
from eqco.study.grid import cells
from eqco.study.study import load_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, default=Path("params/demo.yaml"))
    parser.add_argument("--n", type=int, default=5)
    arguments = parser.parse_args()
    study = load_study(arguments.study)
    cell = list(cells(study))[-1]
    alone = dict(os.environ)
    forkserver.start()
    forked = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        data, out = f"{folder}/data", f"{folder}/cell"
        rate = [
            "--encoder",
            f"{out}/encoder.safetensors",
            "--data",
            data,
            "--threads",
            "1",
            "--out",
        ]
        commands = {
            "start": ["schema"],
            "pretrain": [
                "pretrain",
                "--cell",
                cell,
                "--data",
                data,
                "--out",
                out,
                "--threads",
                "1",
            ],
            "linear-eval": ["linear-eval", *rate, f"{out}/linear.json"],
            "knn-eval": ["knn-eval", *rate, f"{out}/knn.json"],
        }
        run(["prepare", str(arguments.study), "--out", data], forked)  # waits for the server too
        times: dict[str, list[float]] = {}
        for _ in range(arguments.n):
            for kind, environment in (("process", alone), ("fork", forked)):
                shutil.rmtree(out, ignore_errors=True)  # what is finished is not trained again
                for name, (command, *options) in commands.items():
                    study_file = [] if command == "schema" else [str(arguments.study)]
                    seconds = run([command, *study_file, *options], environment)
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


if __name__ == "__main__":
    main()
