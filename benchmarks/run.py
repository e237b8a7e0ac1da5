"""Measure this machine: python benchmarks/run.py [--data <image folder>] [cell.py ...]

Runs the programs here that need no cluster, one after the other (about half an hour on two cores);
nothing else should run beside it. Writes ``benchmarks/results/<date>-<machine>.json``, all that
they printed, and a table, ``.md``. Where only some programs are named, the day's figures of the
others stay.
"""

import argparse
import datetime
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch

from eqco.data import sources
from eqco.errors import InputError
from eqco.store.provenance import provenance
from eqco.study.study import ImageFolder

HERE = Path(__file__).parent
PROGRAMS = (
    *("step.py", "recipes.py", "queue_loss.py", "cell.py"),
    *("demo.py", "packing.py", "diagnostics.py"),
)
RECIPES = ("moco-cifar10-demo", "simclr-dcl-cifar10", "simco-cifar100")
LARGE = ("--network", "resnet18", "--rounds", "3", "--steps", "1")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("programs", nargs="*", help="all without one")
    parser.add_argument("--data", default="data/raw/cifar10-jpeg.tar.xz", help="image folder")
    arguments = parser.parse_args()
    made_by = provenance(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    machine = re.sub(r"[^a-z0-9]+", "-", made_by["hardware"].lower()).strip("-")
    stem = HERE / "results" / f"{datetime.date.today()}-{machine}"
    stem.parent.mkdir(exist_ok=True)
    chosen = set(arguments.programs or PROGRAMS)
    if unknown := chosen - set(PROGRAMS):
        sys.exit(f"benchmarks/run.py: {' '.join(unknown)}: allowed: {' '.join(PROGRAMS)}")
    measured = []
    if (written := stem.with_suffix(".json")).exists():
        earlier = json.loads(written.read_text())["measured"]
        measured = [line for line in earlier if line["program"] not in chosen]
    with tempfile.TemporaryDirectory() as folder:
        try:
            spec = ImageFolder(kind="image-folder", name="step", path=arguments.data, size=32)
            sources.prepare(spec, Path(folder))
        except InputError as error:
            sys.exit(f"benchmarks/run.py: {error}")
        for program, *options in (c for c in commands(folder) if c[0] in chosen):
            print(program, *options, flush=True)
            command = [sys.executable, HERE / program, *options]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
            measured += [{"program": program, **json.loads(line)} for line in lines]
            measured.sort(key=lambda line: PROGRAMS.index(line["program"]))
            content = {"provenance": made_by, "measured": measured}
            written.write_text(json.dumps(content, indent=1) + "\n")
            stem.with_suffix(".md").write_text(table(measured))
    print(table(measured))


def commands(folder: str) -> list[list[str]]:
    """What is run, with the packed images in ``folder``."""
    steps = []
    for size in ((), LARGE):
        for method in ("simclr", "moco", "simo"):
            peer = [] if method == "simo" else ["--lightly"]
            steps.append(["step.py", "--data", folder, "--method", method, *size, *peer])
    for k in ("16", "65536"):
        options = ("--method", "moco", "--negatives", k, *LARGE)
        steps.append(["step.py", "--data", folder, *options])
    recipes = [str(HERE.parent / "params" / f"{name}.yaml") for name in RECIPES]
    return [*steps, ["recipes.py", *recipes], *([program] for program in PROGRAMS[2:])]


def table(measured: list[dict]) -> str:
    """Every figure with its settings, n, median and range, as Markdown."""
    rows = []
    for line in measured:
        settings = {k: v for k, v in line.items() if isinstance(v, str | int) and k != "n"}
        program, unit = settings.pop("program"), settings.pop("unit", "pairs/s")
        named = " ".join(f"{key}={value}" for key, value in settings.items())
        for name in (k for k, v in line.items() if isinstance(v, float)):
            row = {"program": program, "settings": named, "figure": name, "median": line[name]}
            if name in line["ranges"]:
                least, most = line["ranges"][name]
                row |= {"unit": unit, "range": f"{least:g} … {most:g}", "n": str(line["n"])}
            rows.append(row)
    return pd.DataFrame(rows).fillna("").to_markdown(index=False) + "\n"


if __name__ == "__main__":
    main()
