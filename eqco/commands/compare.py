"""``eqco compare``: the differences of a study's configurations from a reference."""

from pathlib import Path

from eqco.report import comparisons, tables
from eqco.report.comparisons import Request
from eqco.runtime.files import write
from eqco.store.selection import choose, confirmed
from eqco.study.grid import Grid


def write_comparisons(grid: Grid, results: Path, request: Request) -> str:
    """Write comparisons.csv and comparisons.md beside the study's table.

    Args:
        grid: the study's grid.
        results: the study's folder, which holds ``cells/`` or their archive.
        request: what to compare.

    Returns:
        The text of comparisons.md.

    Raises:
        InputError: as ``comparisons.compare``.
    """
    if grid.study.select:
        grid = confirmed(grid, choose(grid, results))
    accuracies, summaries = tables.read_study(grid, results, unfinished=True)
    table = comparisons.compare(accuracies, request)
    named = ", ".join(f"{axis} = {value}" for axis, value in request.against.items())
    pooled = f", {' and '.join(request.pool)} pooled seed by seed" if request.pool else ""
    lines = [f"{grid.study.study}: less {named}{pooled}; points, n pairs of seeds", ""]
    lines += [comparisons.markdown(table, request), ""]
    for path, summary in zip(grid.cells, summaries, strict=True):
        for hole in tables.HOLES:
            if summary.get(hole):
                lines.append(f"left out, {hole}: {path}")
    text = "\n".join(lines).rstrip() + "\n"
    write(results / "comparisons.csv", table.to_csv(index=False, float_format="%.6g"))
    write(results / "comparisons.md", text)
    return text


def parse_against(values: str) -> dict[str, str]:
    """The values by axis of ``AXIS=VALUE,AXIS=VALUE``; one without a value has the empty one."""
    pairs = (part.partition("=") for part in values.split(","))
    return {axis.strip(): value.strip() for axis, _, value in pairs}
