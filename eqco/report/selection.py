"""The selection of a study for a reader: table, notes, figure and chart of accuracy by value."""

import math
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from eqco.report import charts, figures
from eqco.report.columns import column
from eqco.report.lines import COLORS, MARKERS
from eqco.store.selection import Choice
from eqco.study.selection import Select


def scores(choices: list[Choice]) -> pd.DataFrame:
    """A row per arm and value that was tried.

    Returns:
        ``arm``, the path of its cells without the axis and the seed; ``value``; ``seeds``; ``mean``
        and ``std``, validation accuracy in percent over the seeds, NaN where one failed;
        ``selected``.
    """
    rows = [
        {
            "arm": choice.arm.name,
            "value": value,
            "seeds": len(accuracies),
            "mean": float(np.mean(accuracies)),
            "std": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else math.nan,
            "selected": value == choice.value,
        }
        for choice in choices
        for value, accuracies in choice.scores.items()
    ]
    return pd.DataFrame(rows, columns=["arm", "value", "seeds", "mean", "std", "selected"])


def notes(select: Select, choices: list[Choice]) -> list[str]:
    """A line on the selection as a whole, and one for each arm that has no value or one at an edge.

    Args:
        select: of the study.
        choices: of ``store.selection.choose``.
    """
    seeds = ", ".join(map(str, select.seeds))
    lines = [
        f"`{select.axis}` is selected for each arm by the mean of `{select.protocol}` over seeds "
        f"{seeds}; the accuracies are of other seeds."
    ]
    for choice in choices:
        if choice.missing:
            lines.append(f"No `{select.axis}` is selected yet for `{choice.arm.name}`.")
        elif choice.at_edge:
            lines.append(
                f"`{choice.arm.name}`: {select.axis} {choice.value} is at an edge of what was "
                f"tried, {', '.join(choice.scores)}: a better value may lie beyond."
            )
    return lines


def figure(table: pd.DataFrame, select: Select, title: str, stem: Path) -> None:
    """Draw validation accuracy against the selected axis to ``stem``.svg and ``stem``.png.

    Args:
        table: of ``scores``.
        select: of the study.
        title: above the figure.
        stem: path without a suffix.
    """
    lines = _lines(table)
    with figures.drawing(1, 1, size=(6, 4.2)) as (drawn, axes):
        axis = axes[0, 0]
        for i, (line, rows) in enumerate(lines.groupby("line", sort=False)):
            look: dict[str, Any] = {"color": COLORS[i % len(COLORS)], "linewidth": 1.2}
            marker = MARKERS[i % len(MARKERS)]
            axis.errorbar(
                rows["x"], rows["mean"], rows["std"], capsize=2, label=line, marker=marker, **look
            )
            best = rows[rows["selected"]]
            axis.plot(best["x"], best["mean"], "o", markersize=12, fillstyle="none", **look)
        ticks = lines.drop_duplicates("x").set_index("x")["value"].sort_index()
        if _is_log(table):
            axis.set_xscale("log")
        axis.set_xticks(list(ticks.index), list(ticks), rotation=45)
        axis.minorticks_off()
        axis.set_xlabel(column(select.axis).symbol)
        axis.set_ylabel(f"{select.protocol} [%]")
        figures.finish(drawn, axes, f"{title}: selected values are ringed")
        figures.save(drawn, stem)


def chart(table: pd.DataFrame, select: Select) -> dict[str, Any]:
    """The figure for a report's page, in Vega-Lite. Arguments as for ``figure``."""
    lines = _lines(table)
    with_holes = lines.astype({"mean": object, "std": object}).where(lines.notna(), None)
    rows: list[Any] = with_holes.to_dict("records")
    scale = alt.Scale(type="log" if _is_log(table) else "linear", nice=False)
    x = alt.X("x:Q", scale=scale) if _is_number(table) else alt.X("value:N", sort=None)
    names = list(lines["line"].unique())
    colors = [COLORS[i % len(COLORS)] for i in range(len(names))]
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=x.title(column(select.axis).symbol),
        y=alt.Y("mean:Q", title=f"{select.protocol} [%]", scale=alt.Scale(zero=False)),
        color=alt.Color(
            "line:N",
            title=None,
            sort=names,
            scale=alt.Scale(domain=names, range=colors),
            legend=alt.Legend(orient="bottom", columns=1, labelLimit=0),
        ),
        tooltip=[alt.Tooltip(f"{name}:N") for name in ("line", "value", "mean", "std", "seeds")],
    )
    points = base.mark_point(filled=True, size=30)
    ring = base.mark_point(size=180, strokeWidth=2).transform_filter("datum.selected")
    return (
        alt.layer(base.mark_line(), points, ring)
        .properties(width="container", height=300, description="Validation accuracy by value")
        .configure(**charts.LOOK)
        .to_dict()
    )


def _lines(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with ``line``, the arm's name without what all arms share, and a place ``x``."""
    arms = [dict(part.split("~", 1) for part in arm.split("/")) for arm in table["arm"]]
    shared: set[str] = set()
    if table["arm"].nunique() > 1:
        shared = {axis for axis in arms[0] if len({arm[axis] for arm in arms}) == 1}
    names = [
        ", ".join(
            value if axis in ("method", "loss") else f"{column(axis).symbol} {value}"
            for axis, value in arm.items()
            if axis not in shared
        )
        for arm in arms
    ]
    values = list(dict.fromkeys(table["value"]))
    x = table["value"].astype(float) if _is_number(table) else table["value"].map(values.index)
    lines = table.assign(line=names, x=x)
    return lines.sort_values("x", kind="stable") if len(lines) else lines


def _is_number(table: pd.DataFrame) -> bool:
    return bool(pd.to_numeric(table["value"], errors="coerce").notna().all())


def _is_log(table: pd.DataFrame) -> bool:
    """Whether the values are positive numbers: rates and their like are tried by factors."""
    return _is_number(table) and bool((table["value"].astype(float) > 0).all())
