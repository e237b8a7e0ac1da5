"""Run programs one after the other; keep the figures of a day in a JSON file and a table."""

import datetime
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import torch

from benchmarks._measure import ROOT
from eqco.store.provenance import provenance

RESULTS = ROOT / "benchmarks" / "results"


class Record:
    """The figures that programs printed on this machine today: ``<date>-<machine>.json``, ``.md``.

    Args:
        device: whose name the files have.
        folder: of the files.

    Attributes:
        measured: the JSON lines of every program, each with its ``command`` and ``revision``.
    """

    def __init__(self, device: torch.device, folder: Path = RESULTS) -> None:
        self.made_by = provenance(device)
        machine = re.sub(r"[^a-z0-9]+", "-", self.made_by["hardware"].lower()).strip("-")
        self.json = folder / f"{datetime.date.today()}-{machine}.json"
        self.measured: list[dict] = []
        if self.json.exists():
            self.measured = json.loads(self.json.read_text())["measured"]

    def __contains__(self, command: list[str]) -> bool:
        return any(line["command"] == " ".join(command) for line in self.measured)

    def run(self, command: list[str], timeout: float | None = None) -> bool:
        """Run a program, put its figures in place of its earlier ones, and write the files.

        Args:
            command: name of the program, and its arguments.
            timeout: in seconds, after which it is killed.

        Returns:
            Whether it has ended well; what it printed before is kept either way.
        """
        name = " ".join(command)
        print(name, flush=True)
        process = [sys.executable, "-m", "benchmarks", *command]
        try:
            done = subprocess.run(process, stdout=subprocess.PIPE, text=True, timeout=timeout)
            output, code = done.stdout, done.returncode
        except subprocess.TimeoutExpired as error:
            output, code = (error.stdout or b"").decode(), "none, it took too long"
        lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        if code:
            print(f"{name}: exit code {code}", file=sys.stderr, flush=True)
        self.measured = [line for line in self.measured if line["command"] != name]
        made = {"command": name, "revision": self.made_by["revision"]}
        self.measured += [made | line for line in lines]
        content = {"provenance": self.made_by, "measured": self.measured}
        self.json.parent.mkdir(parents=True, exist_ok=True)
        self.json.write_text(json.dumps(content, indent=1) + "\n")
        self.json.with_suffix(".md").write_text(self.table())
        return not code

    def table(self) -> str:
        """A table in Markdown: every figure with its settings, n, median and range."""
        rows = []
        for line in self.measured:
            settings = {k: v for k, v in line.items() if isinstance(v, str | int) and k != "n"}
            program, unit = settings.pop("command").split()[0], settings.pop("unit", "pairs/s")
            settings.pop("revision")
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
