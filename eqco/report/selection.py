"""The selection of a study for a reader: table, notes, figure and chart of accuracy by value."""

import math
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from eqco.report import charts, figures
from eqco.report.columns import column
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


def figure(table: pd.DataFrame, select: Select, title: str) -> alt.TopLevelMixin:
    """Validation accuracy against the selected axis, for a file.

    Args:
        table: of ``scores``.
        select: of the study.
        title: above the figure.
    """
    drawn = _layers(table, select).properties(width=460, height=280)
    return figures.look(drawn, f"{title}: selected values are ringed")


def chart(table: pd.DataFrame, select: Select) -> dict[str, Any]:
    """The figure for a report's page, in Vega-Lite. Arguments as for ``figure``."""
    return (
        _layers(table, select)
        .properties(width="container", height=300, description="Validation accuracy by value")
        .configure(**charts.LOOK)
        .to_dict()
    )


def _layers(table: pd.DataFrame, select: Select) -> Any:
    """Lines, bars of a standard deviation, points, and rings around what was selected."""
    lines = _lines(table)
    scale = alt.Scale(type="log" if _is_log(table) else "linear", nice=False)
    ticks = sorted(lines["x"].unique().tolist())
    axis = alt.Axis(values=ticks, format="~g", labelOverlap=True, labelSeparation=4)
    is_number = _is_number(table)
    x = alt.X("x:Q", scale=scale, axis=axis) if is_number else alt.X("value:N", sort=None)
    names = list(lines["line"].unique())
    title = f"{select.protocol} [%]"
    y = alt.Y("mean:Q", title=title, scale=alt.Scale(zero=False))
    lines["low"], lines["high"] = lines["mean"] - lines["std"], lines["mean"] + lines["std"]
    base = alt.Chart(figures.values(lines)).encode(
        x=x.title(column(select.axis).symbol),
        y=y,
        color=figures.color("line", names).legend(orient="bottom", columns=1, labelLimit=0),
        tooltip=[alt.Tooltip(f"{name}:N") for name in ("line", "value", "mean", "std", "seeds")],
    )
    bars = base.mark_rule(aria=False).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    points = base.mark_point(filled=True, size=30, opacity=1)
    ring = base.mark_point(size=180, strokeWidth=2).transform_filter("datum.selected")
    return alt.layer(base.mark_line(), bars, points, ring)


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
