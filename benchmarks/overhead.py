"""CPU seconds of a study's whole run, from Snakemake's start to the report, by part.

Runs ``snakemake`` in a copy of the project, in which every Python process notes its CPU seconds at
its end, ``--n`` times. CPU seconds tell what wall seconds times cores would on a machine without
other programs. Prints one JSON line:

- ``pretrain``, ``linear-eval``, ``knn-eval``, ``table``, ``report`` and others: the commands' work
  in forks of the fork server, reading and checking their files included;
- ``imports``: the fork server's;
- ``starts``: Python's starts of the first three, which hand their work over;
- ``snakemake``: its main process; ``shells``: of the jobs, and other programs;
- ``whole``: all of these; and ``cells``, the share of the first three.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks._measure import ROOT, arguments, report

NOTE = """
import atexit, json, os, sys, time

plain, path = os._exit, os.environ["EQCO_BENCHMARK"]


def note():
    with open(path, "a") as file:
        file.write(json.dumps([sys.argv, time.process_time()]) + "\\n")


def exit_without_clean_up(code):  # how a fork ends
    note()
    plain(code)


atexit.register(note)
os._exit = exit_without_clean_up
"""
CELLS = ("pretrain", "linear-eval", "knn-eval")


def main() -> None:
    options = arguments(__doc__, n=1, study=True).parse_args()
    runs: dict[str, list[float]] = {}
    for _ in range(options.n):
        with tempfile.TemporaryDirectory() as folder:
            for name, seconds in parts(Path(folder), options.study).items():
                runs.setdefault(name, []).append(seconds)
    share = sum(statistics.median(runs[name]) for name in CELLS) / statistics.median(runs["whole"])
    report({"study": options.study.stem, "unit": "s"}, runs, cells=round(share, 3))


def parts(folder: Path, study: Path) -> dict[str, float]:
    """CPU seconds of each part of one run."""
    for name in ("eqco", "params", "profiles", "published", "workflow"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "note").mkdir()
    (folder / "note/sitecustomize.py").write_text(NOTE)
    notes = folder / "notes"
    paths = [str(folder / "note"), str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "EQCO_BENCHMARK": str(notes)}
    command = [sys.executable, "-m", "snakemake", "--configfile", str(study), "--quiet"]
    process = subprocess.Popen(command, cwd=folder, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    found: Counter[str] = Counter()
    waited_for = 0.0  # of Snakemake's own notes: its main process, and the jobs' starts
    time.sleep(3)  # the fork server looks once a second whether Snakemake has ended
    for line in notes.read_text().splitlines():
        (program, *given), seconds = json.loads(line)
        name = Path(program).parent.name + "/" + Path(program).name
        if name == "eqco/forkserver.py":
            found["imports" if given[0].isdigit() else given[0]] += seconds
            continue
        if "snakemake" in name:
            found["snakemake"] += seconds
        else:
            found["starts" if given[0] in CELLS else given[0]] += seconds
        waited_for += seconds
    found["shells"] = usage.ru_utime + usage.ru_stime - waited_for
    return {**found, "whole": sum(found.values())}
