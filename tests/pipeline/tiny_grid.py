"""Snakemake on the tiny study, in a copy of the project's files."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from helpers import with_values

CELLS = 4  # one K, two margins, two seeds
MADE = {"table": 1, "report": 1, "all": 1}  # once a cell is new
COLD = [sys.executable, "-m", "snakemake", "--configfile", "tiny.yaml", "--cores", "2"]


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake on tiny.yaml in ``folder``, with the package that lies there."""
    command = ["snakemake", "--configfile", "tiny.yaml", *arguments]
    return run(folder, command, {**os.environ, "PYTHONPATH": str(folder)})


def run(folder: Path, command: list[str], environment: dict) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    done.stdout += done.stderr
    return done


def jobs(output: str) -> dict[str, int]:
    """Snakemake's statistics: how many jobs of which rule."""
    stats = output.split("Job stats:")[1].split("total")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", stats, re.M)}


def jobs_or_none(output: str) -> dict[str, int]:
    return {} if "Nothing to be done" in output else jobs(output)


def ran(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    assert done.returncode == 0, done.stdout
    return jobs_or_none(done.stdout)


def change(folder: Path, changes: dict) -> None:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(with_values(yaml.safe_load(path.read_text()), changes)))


def tables(folder: Path) -> str:
    names = ("table.csv", "table.md", "negatives.svg", "negatives.png")
    content = b"".join((folder / "results" / "tiny" / name).read_bytes() for name in names)
    return hashlib.sha256(content).hexdigest()
