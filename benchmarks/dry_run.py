"""Seconds and memory of a dry run of a large grid.

Prints one JSON line: wall and CPU seconds, and peak memory, of ``snakemake -n`` on a study of so
many cells.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import yaml

from benchmarks._measure import ROOT, arguments, report


def main() -> None:
    parser = arguments(__doc__, n=1)
    parser.add_argument("--cells", type=int, default=10_000)
    options = parser.parse_args()
    study = yaml.safe_load((ROOT / "params" / "demo.yaml").read_text())
    study["grid"][0]["seeds"] = list(range(options.cells // 10))  # 5 K x 2 margins
    times: dict[str, list[float]] = {"dry_run": [], "cpu": []}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "study.yaml").write_text(yaml.safe_dump(study))
        workflow = ["--snakefile", str(ROOT / "Snakefile"), "-n"]
        command = [sys.executable, "-m", "snakemake", *workflow, "--configfile", "study.yaml"]
        for _ in range(options.n):
            start, before = time.perf_counter(), getrusage(RUSAGE_CHILDREN)
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
            times["dry_run"].append(time.perf_counter() - start)
            after = getrusage(RUSAGE_CHILDREN)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            times["cpu"].append(used)
    planned = (done.stdout + done.stderr).split("\npretrain ")[1].split()[0]
    mebibytes = getrusage(RUSAGE_CHILDREN).ru_maxrss / 1024
    report({"cells": int(planned), "unit": "s"}, times, peak_mib=round(mebibytes))
