"""Seconds to the demo's table, and of each part of the run.

Runs ``snakemake --configfile params/demo.yaml`` in a copy of the project, n times. Prints one JSON
line: wall seconds to the table; seconds until the first job, and from the last cell to the end; and
the sum of the seconds of each rule's jobs, of which two run at once.
"""

import base64
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._measure import ROOT, arguments, report

RULES = ("pretrain", "linear_eval", "knn_eval")


def main() -> None:
    options = arguments(__doc__, n=1).parse_args()
    runs: dict[str, list[float]] = {}
    for _ in range(options.n):
        with tempfile.TemporaryDirectory() as folder:
            for name, seconds in parts(Path(folder)).items():
                runs.setdefault(name, []).append(seconds)
    report({"study": "demo", "unit": "s"}, runs)


def parts(folder: Path) -> dict[str, float]:
    """Seconds of the parts of a run, from Snakemake's records of its jobs."""
    for name in ("eqco", "params", "profiles", "published", "workflow"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "Snakefile", folder)
    command = [sys.executable, "-m", "snakemake", "--configfile", "params/demo.yaml", "--quiet"]
    start = time.time()
    subprocess.run(command, cwd=folder, check=True)
    end = time.time()
    jobs: dict[str, dict[str, tuple[float, float]]] = {}
    for record in (folder / "results/demo/.snakemake/metadata").rglob("*"):
        if record.is_file():
            job = json.loads(record.read_text())
            log = (job.get("log") or [base64.b64decode(record.name).decode(errors="replace")])[0]
            jobs.setdefault(job["rule"], {})[log] = (job["starttime"], job["endtime"])
    started = min(begin for rule in jobs.values() for begin, _ in rule.values())
    evaluated = max(ended for rule in RULES for _, ended in jobs[rule].values())
    return {
        "wall": end - start,
        "until_first_job": started - start,
        "after_last_cell": end - evaluated,
        **{rule: sum(b - a for a, b in jobs[rule].values()) for rule in RULES},
    }
