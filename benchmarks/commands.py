"""Seconds that a person waits for a command that trains nothing: help, status, a comparison.

The last two are of a study of 1,000 cells of 200 epochs, all finished; the comparison reads their
archive. Prints one JSON line: wall seconds, and seconds of a processor.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import yaml

from benchmarks._measure import ROOT, arguments, report
from eqco.store.archive import read_kept
from eqco.store.cells import write_json

sys.path.append(str(ROOT / "tests"))

from helpers import TINY, make_up_cells, study_of_1000_cells


def seconds(*arguments: str) -> tuple[float, float]:
    """The wall seconds of a command, and those of a processor."""
    before, start = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "eqco", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, getrusage(RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    options = arguments(__doc__, n=5).parse_args()
    study = study_of_1000_cells(yaml.safe_load(TINY.read_text()))
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file, results = Path(folder, "study.yaml"), Path(folder, "results")
        file.write_text(yaml.safe_dump(study.model_dump(mode="json")))
        make_up_cells(study, results)
        for path, files in read_kept(results).items():
            for name, values in files.items():
                write_json(results / "cells" / path / name, values)
        kept = Path(folder, "kept")
        kept.mkdir()
        (results / "cells.jsonl").rename(kept / "cells.jsonl")
        compare = ["compare", str(file), "--results", str(kept), "--against", "margin=0"]
        commands = {
            "help": ["--help"],
            "status": ["status", str(file), "--results", str(results)],
            "compare": compare,
        }
        for _ in range(options.n):
            for name, command in commands.items():
                wall, processor = seconds(*command)
                figures.setdefault(name, []).append(wall)
                figures.setdefault(f"{name}_processor", []).append(processor)
    report({"study": "1,000 cells, 200 epochs", "unit": "s"}, figures)
