"""``eqco claims``: every study's claims with their verdicts, as a block of a Markdown page."""

import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from eqco.errors import InputError
from eqco.report.comparisons import interval_text
from eqco.runtime.files import write
from eqco.runtime.git import git
from eqco.store.cells import read_json
from eqco.study.load import load_study
from eqco.study.study import Study

# of all studies, or of those named, or the first and third claim of one:
# <!-- claims of one, another 1 3: written by eqco claims -->
# in short: without what says where a number comes from
MARKS = re.compile(
    r"(<!-- claims(?P<short> in short)?(?: of (?P<studies>[^:]+))?: written by eqco claims -->\n)"
    r".*?(<!-- claims end -->)",
    re.S,
)
CELLS = "cells.jsonl"
SOURCES = ("revision", "stated")


def write_claims(params: Path, results: Path, pages: list[Path]) -> None:
    """Write the table of claims, of all studies or of those named, between a page's marks.

    Args:
        params: the folder of study files.
        results: the folder of results, with each study's claims.csv and provenance.json.
        pages: Markdown files that hold the marks.

    Raises:
        InputError: a page has no marks, or names a claim that is not there; a result is damaged.
    """
    studies = [(file, load_study(file)) for file in sorted(params.glob("*.yaml"))]
    files = {study.study: (file, study) for file, study in studies}

    @cache  # what git tells takes its time, and a page may name few studies
    def rows(name: str) -> list[dict[str, Any]]:
        return _claims(*files[name], results) if name in files else []

    for page in pages:

        def block(marks: re.Match[str], page: Path = page) -> str:
            names = marks["studies"].split(", ") if marks["studies"] else files
            of_page = [row for name in names for row in _named(rows, name, page)]
            if marks["short"]:
                of_page = [{k: row[k] for k in row if k not in SOURCES} for row in of_page]
            return f"{marks[1]}\n{_table(of_page, results, page)}\n\n{marks[4]}"

        text, count = MARKS.subn(block, page.read_text(encoding="utf-8"))
        if not count:
            lines = "<!-- claims: written by eqco claims --> and <!-- claims end -->"
            raise InputError(f"{page}: has no lines {lines} to write between")
        write(page, text)


def _named(
    rows: Callable[[str], list[dict[str, Any]]], name: str, page: Path
) -> list[dict[str, Any]]:
    """The rows of a study, or of those of its claims whose numbers, from 1, follow its name."""
    study, *numbers = name.split()
    by_number = {str(i): row for i, row in enumerate(rows(study), 1)}
    if missing := set(numbers) - by_number.keys():
        allowed = f"a study and numbers of its claims that have a verdict, 1 to {len(by_number)}"
        raise InputError(f"{page}: claims of {name}: {missing.pop()}: must be {allowed}")
    return [by_number[i] for i in numbers or by_number]


def _table(rows: list[dict[str, Any]], results: Path, page: Path) -> str:
    """The claims in Markdown, with links from a page to their comparisons."""
    if not rows:
        return "None yet."
    links = [
        os.path.relpath(results / row["study"] / "comparisons.md", page.parent) for row in rows
    ]
    linked = [
        {**row, "study": f"[`{row['study']}`]({link})"}
        for row, link in zip(rows, links, strict=True)
    ]
    return pd.DataFrame(linked).to_markdown(index=False, disable_numparse=True)


def _claims(file: Path, study: Study, results: Path) -> list[dict[str, Any]]:
    """The claims of a study that have a verdict, for a reader."""
    folder = results / study.study
    if not study.claims or not (folder / "claims.csv").exists():
        return []
    table = pd.read_csv(folder / "claims.csv", dtype={"n": str})
    made_by = read_json(folder / "provenance.json")["made_by"]
    commits = [one["revision"].partition("-") for one in made_by]  # -dirty: with other changes
    revisions = dict.fromkeys(f"`{commit[:7]}{dash}{word}`" for commit, dash, word in commits)
    return [
        {
            "claim": f"{row['claim']} ({row['source']})",
            "verdict": f"**{row['verdict']}**",
            "difference [95 %]": difference,
            "n": row["n"],
            "by": row["protocol"],
            "study": study.study,
            "revision": ", ".join(revisions),
            "stated": stated(file, i, folder / CELLS),
        }
        for i, (row, difference) in enumerate(
            zip(table.to_dict("records"), interval_text(table), strict=True)
        )
    ]


def stated(file: Path, number: int, cells: Path) -> str:
    """Whether a claim stood in its study file, as it is now, before its first result.

    Args:
        file: the study file.
        number: of the claim.
        cells: the archive of the study's cells.

    Returns:
        ``before``, ``after`` its result, or ``unknown`` where git does not tell. A claim that was
        changed since, or its comparison, is another claim.
    """
    folder = file.resolve().parent
    if git(folder, "rev-parse", "--is-shallow-repository") != "false":
        return "unknown"
    claim = _definition(file.read_text(encoding="utf-8"), number)
    holders = (
        commit
        for commit in git(folder, "log", "--format=%H", "--reverse", "--", file.name).split()
        if _holds(git(folder, "show", f"{commit}:./{file.name}"), claim)
    )
    first_claim = next(holders, "")
    added = ("log", "--format=%H", "--reverse", "--diff-filter=A", "--", str(cells.resolve()))
    first_result = next(iter(git(folder, *added).split()), "")
    if not first_result:
        return "before" if first_claim else "unknown"
    if not first_claim or first_claim == first_result:
        return "after"
    base = git(folder, "merge-base", first_claim, first_result)
    return "before" if base == first_claim else "after"


@cache  # each claim asks for every version of its file
def _values(text: str) -> dict[str, Any]:
    """The values of a study file; none if it is not YAML."""
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError:
        return {}


def _definition(text: str, number: int) -> tuple[Any, Any]:
    """A claim of a study file and its comparison, as they are written."""
    values = _values(text)
    claim = values["claims"][number]
    found = [one for one in values["comparisons"] if one["name"] == claim["comparison"]]
    return claim, found[0]


def _holds(text: str, claim: tuple[Any, Any]) -> bool:
    """Whether a version of a study file has this claim and its comparison."""
    values = _values(text)
    return claim[0] in values.get("claims", []) and claim[1] in values.get("comparisons", [])
