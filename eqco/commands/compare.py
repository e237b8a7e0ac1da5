"""``eqco compare``: the differences of a study's configurations, and the verdicts on its claims."""

from pathlib import Path

import pandas as pd

from eqco.errors import InputError
from eqco.report import claims, comparisons, tables
from eqco.runtime.files import write
from eqco.store.selection import choose, confirmed
from eqco.study.claims import Comparison
from eqco.study.grid import Grid
from eqco.study.study import Study

FORMAT = "%.6g"


def write_comparison(grid: Grid, results: Path, comparison: Comparison) -> str:
    """Make one comparison that stands in no study file; write comparison.csv and comparison.md.

    Args:
        grid: the study's grid.
        results: the study's folder, which holds ``cells/`` or their archive.
        comparison: what to compare.

    Returns:
        The text of comparison.md.

    Raises:
        InputError: as ``comparisons.compare``.
    """
    accuracies, holes = _read(grid, results)
    table = comparisons.compare(accuracies, comparison)
    text = _section(grid.study, comparison, table) + holes
    write(results / "comparison.csv", table.to_csv(index=False, float_format=FORMAT))
    write(results / "comparison.md", text)
    return text


def write_own(grid: Grid, results: Path) -> str:
    """Make the comparisons of a study's file, and decide its claims.

    Writes comparisons.csv and .md, forest.svg and .png, and with claims claims.csv, .md, .svg and
    .png.

    Args:
        grid: the study's grid.
        results: the study's folder, which holds ``cells/`` or their archive.

    Returns:
        The text of both Markdown files.

    Raises:
        InputError: the study has no comparisons, or one has nothing to compare.
    """
    from eqco.report import figures, forest  # altair, which one comparison does not need

    study = grid.study
    if not study.comparisons:
        raise InputError(f"{study.study}: comparisons: is missing; name one by --against")
    accuracies, holes = _read(grid, results)
    found = claims.comparisons(study, accuracies)
    named = [table.assign(comparison=name) for name, table in found.items()]
    joined = pd.concat(named, ignore_index=True)
    joined.insert(0, "comparison", joined.pop("comparison"))
    sections = [_section(study, one, found[one.name]) for one in study.comparisons]
    text = "\n".join(sections) + holes
    write(results / "comparisons.csv", joined.to_csv(index=False, float_format=FORMAT))
    write(results / "comparisons.md", text)
    figures.save(forest.draw(study.comparisons, found, study.study), results / "forest")
    if not study.claims:
        return text
    decided = claims.claims(study, accuracies)
    told = claims.markdown(decided) + "\n"
    write(results / "claims.csv", decided.to_csv(index=False, float_format=FORMAT))
    write(results / "claims.md", told)
    figures.save(forest.draw_claims(decided, study.study), results / "claims")
    return f"{told}\n{text}"


def _read(grid: Grid, results: Path) -> tuple[pd.DataFrame, str]:
    """The accuracies of a study, and a line for each cell that has none."""
    if grid.study.select:
        grid = confirmed(grid, choose(grid, results))
    accuracies, summaries = tables.read_study(grid, results, unfinished=True)
    lines = [
        f"left out, {hole}: {path}\n"
        for path, summary in zip(grid.cells, summaries, strict=True)
        for hole in tables.HOLES
        if summary.get(hole)
    ]
    return accuracies, "\n".join(["", *lines]) if lines else ""


def _section(study: Study, comparison: Comparison, table: pd.DataFrame) -> str:
    named = ", ".join(f"{axis} = {value}" for axis, value in comparison.against.items())
    pooled = " and ".join(comparison.pool)
    pooled = f", {pooled} pooled seed by seed" if pooled else ""
    name = f", {comparison.name}" if comparison.name != study.study else ""
    head = f"{study.study}{name}: less {named}{pooled}; points, n pairs of seeds"
    return f"{head}\n\n{comparisons.markdown(table, comparison)}\n"


def parse_against(values: str) -> dict[str, str]:
    """The values by axis of ``AXIS=VALUE,AXIS=VALUE``; one without a value has the empty one."""
    pairs = (part.partition("=") for part in values.split(","))
    return {axis.strip(): value.strip() for axis, _, value in pairs}
