"""Every figure of this machine: runs step, recipes, queue_loss, cell and demo.

They run one after the other (about half an hour on two cores); nothing else should run beside them.
Writes their output to ``benchmarks/results/<date>-<machine>.json``, and a table, ``.md``. If only
some programs are named, the day's figures of the others stay.
"""

import argparse
import datetime
import json
import re
import subprocess
import sys

import pandas as pd
import torch

from benchmarks._measure import ROOT, packed
from eqco.errors import InputError
from eqco.store.provenance import provenance
from eqco.study.datasets import ImageFolder

RESULTS = ROOT / "benchmarks" / "results"
PROGRAMS = ("step", "recipes", "queue_loss", "cell", "demo")
RECIPES = ("moco-cifar10-demo", "simclr-dcl-cifar10", "simco-cifar100")
LARGE = ("--network", "resnet18", "--n", "3", "--steps", "1")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("programs", nargs="*", help="default: all")
    parser.add_argument("--data", default="data/raw/cifar10-jpeg.tar.xz", help="image folder")
    options = parser.parse_args()
    made_by = provenance(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    machine = re.sub(r"[^a-z0-9]+", "-", made_by["hardware"].lower()).strip("-")
    stem = RESULTS / f"{datetime.date.today()}-{machine}"
    stem.parent.mkdir(exist_ok=True)
    chosen = set(options.programs or PROGRAMS)
    if unknown := chosen - set(PROGRAMS):
        sys.exit(f"benchmarks machine: {' '.join(unknown)}: allowed: {' '.join(PROGRAMS)}")
    measured = []
    if (written := stem.with_suffix(".json")).exists():
        earlier = json.loads(written.read_text())["measured"]
        measured = [line for line in earlier if line["program"] in set(PROGRAMS) - chosen]
    spec = ImageFolder(kind="image-folder", name="step", path=options.data, size=32)
    try:
        with packed(spec) as folder:
            for program, *rest in (c for c in commands(str(folder)) if c[0] in chosen):
                print(program, *rest, flush=True)
                command = [sys.executable, "-m", "benchmarks", program, *rest]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
                measured += [{"program": program, **json.loads(line)} for line in lines]
                measured.sort(key=lambda line: PROGRAMS.index(line["program"]))
                content = {"provenance": made_by, "measured": measured}
                written.write_text(json.dumps(content, indent=1) + "\n")
                stem.with_suffix(".md").write_text(table(measured))
    except InputError as error:
        sys.exit(f"benchmarks machine: {error}")
    print(table(measured))


def commands(folder: str) -> list[list[str]]:
    """The command lines of all programs, with the packed images in ``folder``."""
    steps = []
    for size in ((), LARGE):
        for method in ("simclr", "moco", "simo"):
            peer = [] if method == "simo" else ["--lightly"]
            steps.append(["step", "--data", folder, "--method", method, *size, *peer])
    for k in ("16", "65536"):
        options = ("--method", "moco", "--negatives", k, *LARGE)
        steps.append(["step", "--data", folder, *options])
    recipes = [str(ROOT / "params" / f"{name}.yaml") for name in RECIPES]
    return [*steps, ["recipes", *recipes], *([program] for program in PROGRAMS[2:])]


def table(measured: list[dict]) -> str:
    """A table in Markdown: every figure with its settings, n, median and range."""
    rows = []
    for line in measured:
        settings = {k: v for k, v in line.items() if isinstance(v, str | int) and k != "n"}
        program, unit = settings.pop("program"), settings.pop("unit", "pairs/s")
        settings_text = " ".join(f"{key}={value}" for key, value in settings.items())
        for name in (k for k, v in line.items() if isinstance(v, float)):
            row = {
                "program": program,
                "settings": settings_text,
                "figure": name,
                "median": line[name],
            }
            if name in line["ranges"]:
                least, most = line["ranges"][name]
                row |= {"unit": unit, "range": f"{least:g} … {most:g}", "n": str(line["n"])}
            rows.append(row)
    return pd.DataFrame(rows).fillna("").to_markdown(index=False) + "\n"
