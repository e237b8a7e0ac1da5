"""A study's comparisons and claims as figures: differences with intervals, and their bounds."""

import json
import textwrap
from collections.abc import Iterable
from typing import Any

import altair as alt
import pandas as pd

from eqco.report.claims import CONTRADICTED, SUPPORTED, UNDECIDED
from eqco.report.columns import column
from eqco.report.figures import against_k, color, look, shape, values
from eqco.report.lines import COLORS, NAMES, on_test, ticks_of
from eqco.study.claims import Comparison

WIDTH = 480  # pixels of a panel
STEP = 15  # pixels of an interval, or of a line of text
BAND = "#e5e5e5"
LOOKS = {SUPPORTED: (COLORS[1], "circle"), CONTRADICTED: (COLORS[0], "cross")}
LOOKS |= {UNDECIDED: ("#737373", "square")}


def draw(
    comparisons: Iterable[Comparison], tables: dict[str, pd.DataFrame], title: str
) -> alt.TopLevelMixin:
    """A panel for each comparison.

    A comparison with another K is a curve against K; any other has a row per configuration. Bars
    are 95 % intervals, the grey band is the equivalence bound. Protocols on the test images alone.

    Args:
        comparisons: of the study.
        tables: theirs, by name, of ``comparisons.compare``.
        title: above the figure.
    """
    tables = {name: on_test(table).reset_index(drop=True) for name, table in tables.items()}
    drawn = [comparison for comparison in comparisons if comparison.name in tables]
    protocols = list(
        dict.fromkeys(p for comparison in drawn for p in tables[comparison.name]["protocol"])
    )
    panels = []
    for comparison in drawn:
        is_curve = set(comparison.against) == {"negatives"}
        panel = (_curve if is_curve else _rows)(tables[comparison.name], comparison, protocols)
        panels.append(panel.properties(width=WIDTH, title=_title(comparison)))
    return look(alt.vconcat(*panels), title)


def draw_claims(table: pd.DataFrame, title: str) -> alt.TopLevelMixin:
    """A row for each claim: its difference, 95 % interval and verdict.

    The grey bar behind a row is the bound within which a difference is of no interest.

    Args:
        table: of ``claims.claims``.
        title: above the figure.
    """
    texts = [textwrap.wrap(claim, 56) for claim in table["claim"]]
    labels = f"{json.dumps(texts)}[datum.value]"
    bound = pd.to_numeric(table["equivalence"])  # None: without one
    rows = table.assign(row=range(len(table)), start=-bound, end=bound)
    chart = alt.Chart(values(rows)).encode(
        y=alt.Y("row:O", title=None, axis=alt.Axis(labelExpr=labels, grid=False, ticks=False)),
        color=alt.Color("verdict:N", legend=None, scale=_scale(0)),
    )
    title_of_x = "difference, points, with its 95 % interval"
    x, low, start, at = (
        alt.X(f"{name}:Q", title=title_of_x) for name in ("difference", "low", "start", "zero")
    )
    zero = alt.Chart(values(pd.DataFrame({"zero": [0]}))).mark_rule().encode(x=at)
    layers = [
        chart.mark_rect().encode(x=start, x2="end:Q", color=alt.value(BAND)),
        zero,
        chart.mark_rule(strokeWidth=1.5).encode(x=low, x2="high:Q"),
        chart.mark_point(filled=True, size=50, opacity=1).encode(
            x=x, shape=alt.Shape("verdict:N", legend=None, scale=_scale(1))
        ),
        chart.mark_text(align="left", dx=8, fontSize=12).encode(
            x=alt.value(WIDTH * 0.75), text="verdict:N"
        ),
    ]
    lines = max(map(len, texts), default=1)
    size = {"width": WIDTH * 0.75, "height": alt.Step(STEP * lines + 6)}
    return look(alt.layer(*layers).properties(**size), title)


def _scale(which: int) -> alt.Scale:
    """The colours, or the shapes, of the verdicts."""
    return alt.Scale(domain=list(LOOKS), range=[verdict[which] for verdict in LOOKS.values()])


def _title(comparison: Comparison) -> str:
    against = ", ".join(
        f"{column(axis).symbol} = {value}" for axis, value in comparison.against.items()
    )
    return f"{comparison.name}: less {against}, points"


def _varying(table: pd.DataFrame, but: tuple[str, ...]) -> list[str]:
    axes = [str(name) for name in table][: list(table).index("test")]
    return [name for name in axes if name not in but and table[name].nunique() > 1]


def _rows(table: pd.DataFrame, comparison: Comparison, protocols: list[str]) -> Any:
    """A row per configuration and protocol; the configurations from top to bottom."""
    names = _varying(table, ("protocol",)) or list(comparison.against)
    names = [name for name in names if name in table]
    labels = [
        ", ".join(f"{column(name).symbol} {row[name]}" for name in names if row[name] != "")
        for row in table.to_dict("records")
    ]
    chart = alt.Chart(values(table.assign(label=labels))).encode(
        y=alt.Y("label:N", title=None, sort=None, axis=alt.Axis(ticks=False)),
        yOffset=alt.YOffset("protocol:N", sort=list(table["protocol"].unique())),
        color=color("protocol", protocols),
    )
    x = alt.X("difference:Q", title=None)
    layers = [
        chart.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q", title=None), x2="high:Q"),
        chart.mark_point(filled=True, size=40, opacity=1).encode(
            x=x, shape=shape("protocol", protocols)
        ),
    ]
    height = max(STEP * len(table), 2 * STEP)
    return alt.layer(*_bounds(comparison, "x"), *layers).properties(height=height)


def _curve(table: pd.DataFrame, comparison: Comparison, protocols: list[str]) -> Any:
    """The difference against K, a line per configuration and protocol."""
    names = _varying(table, ("negatives", "protocol", "alpha"))
    arms = [
        ", ".join(NAMES.get(str(row[name]), str(row[name])) for name in names)
        for row in table.to_dict("records")
    ]
    points = table.assign(y=table["difference"], arm=arms)
    points["line"] = points["arm"] + points["protocol"]
    more: dict[str, Any] = {"strokeDash": alt.StrokeDash("arm:N", title=None)} if names else {}
    lines = against_k(
        points,
        lines=list(points["line"].unique()),
        ticks=ticks_of(table),
        title=None,
        by="protocol",
        names=protocols,
        **more,
    )
    return alt.layer(*_bounds(comparison, "y"), lines).properties(height=170)


def _bounds(comparison: Comparison, axis: str) -> list[alt.Chart]:
    """The band of differences of no interest, if there is one, and the line at 0."""
    bound = comparison.equivalence
    chart = alt.Chart(values(pd.DataFrame([{"zero": 0, "low": -(bound or 0), "high": bound}])))
    channel = {"x": alt.X, "y": alt.Y}[axis]
    zero = chart.mark_rule().encode(channel("zero:Q", title=None))
    low = channel("low:Q", title=None)
    band = chart.mark_rect(color=BAND).encode(low, **{f"{axis}2": "high:Q"})
    return [band, zero] if bound else [zero]
