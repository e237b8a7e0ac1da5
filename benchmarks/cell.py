"""Where the time of a small cell goes: python benchmarks/cell.py [--study params/demo.yaml] [--n 5]

Runs the commands of one cell of the study, in turn as processes of their own and as forks of the
fork server, n times each. Prints one JSON line: for both, the median wall seconds of every command,
and of a command that does nothing but start (``schema``, and torch's import where it is needed).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from eqco import forkserver
from eqco.grid import cells
from eqco.params import load_study


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
        times: dict[str, dict[str, list[float]]] = {"process": {}, "fork": {}}
        for _ in range(arguments.n):
            for kind, environment in (("process", alone), ("fork", forked)):
                for name, (command, *options) in commands.items():
                    study_file = [] if command == "schema" else [str(arguments.study)]
                    seconds = run([command, *study_file, *options], environment)
                    times[kind].setdefault(name, []).append(seconds)
    medians = {
        kind: {name: round(statistics.median(values), 2) for name, values in by_name.items()}
        for kind, by_name in times.items()
    }
    print(json.dumps({"n": arguments.n, **medians}))


def run(arguments: list[str], environment: dict[str, str]) -> float:
    """Wall seconds of ``python -m eqco`` with these arguments."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "eqco", *arguments]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
