"""What a person waits for a command that trains nothing: python benchmarks/commands.py [--n 5]

Prints one JSON line: wall seconds, and seconds of a processor, of ``eqco --help`` and of ``eqco
status`` on a study of 1,000 cells of 200 epochs, all finished.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import yaml
from report import report

from eqco.kept import read_kept
from eqco.results import write_json

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

from helpers import TINY, make_up_cells, study_of_1000_cells  # noqa: E402


def seconds(*arguments: str) -> tuple[float, float]:
    """Of a command: wall, and of a processor."""
    before, start = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "eqco", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, getrusage(RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=5)
    arguments = parser.parse_args()
    study = study_of_1000_cells(yaml.safe_load(TINY.read_text()))
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file, results = Path(folder, "study.yaml"), Path(folder, "results")
        file.write_text(yaml.safe_dump(study.model_dump(mode="json")))
        make_up_cells(study, results)
        for path, files in read_kept(results).items():
            for name, values in files.items():
                write_json(results / "cells" / path / name, values)
        (results / "cells.jsonl").unlink()
        commands = {"help": ["--help"], "status": ["status", str(file), "--results", str(results)]}
        for _ in range(arguments.n):
            for name, command in commands.items():
                wall, processor = seconds(*command)
                figures.setdefault(name, []).append(wall)
                figures.setdefault(f"{name}_processor", []).append(processor)
    report({"study": "1,000 cells, 200 epochs", "unit": "s"}, figures)


if __name__ == "__main__":
    main()
