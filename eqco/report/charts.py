"""The charts of a report, in Vega-Lite, which the reader's browser draws."""

import math
from itertools import product
from typing import Any

import altair as alt
import pandas as pd

from eqco.report.columns import settings
from eqco.report.lines import COLORS, SHAPES, shift_of, ticks_of

CURVES = {  # columns of a history, and their titles
    "loss": "loss [nats], mean of the epoch",
    "weight": "weight W, last step",
    "positive": "similarity of positives, last step",
    "negative": "similarity of negatives, last step",
    "gradient": "gradient ‖∂L/∂q‖, last step",
    "images_per_s": "images/s",
}
KNN = {"knn": "kNN accuracy [%]"}  # a curve of a study with `evaluate.every`
ALL = "all"  # the choice that keeps every value
FEW = 20  # up to so many epochs, points are drawn too: one epoch alone has no line
TEXT = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 300}
LOOK: dict[str, Any] = {
    "font": "system-ui, sans-serif",
    "lineBreak": "\n",
    "axis": TEXT,
    "legend": TEXT,
}


def switches(table: pd.DataFrame) -> dict[str, list[str]]:
    """The choices of a reader: a protocol, and a value of each axis that has several.

    Args:
        table: of ``tables.aggregate``.
    """
    choices = {"protocol": list(table["protocol"].unique())}
    for name in ("alpha", *settings(table)):
        # another margin's α is derived from its K: nothing to choose
        rows = table[table["margin"] == "eqco"] if name == "alpha" else table
        values = [str(value) for value in rows[name].unique()]
        if len(values) > 1:
            choices[name] = [ALL, *values]
    return choices


def against_k(table: pd.DataFrame, method: str) -> dict[str, Any]:
    """Accuracy against K of one method, one line per margin or loss.

    The chart reads the switches from the page's elements of their names. A row without a mean is a
    cross at the foot. The axes and the looks of the lines are the same for all methods.

    Args:
        table: of ``tables.aggregate``, with each row's ``line``, ``accuracy`` as text and ``id``,
            which the points of the chart have too.
        method: the method.
    """
    choices = switches(table)
    rows = _points(table, method, choices)
    return (
        alt.layer(*_layers(table, rows, choices))
        .transform_filter(" && ".join(map(_is_chosen, choices)))
        .transform_calculate(
            low="datum.mean - datum.std",
            high="datum.mean + datum.std",
            described="datum.line + ', K ' + datum.negatives + ': ' + datum.accuracy"
            " + ', seeds ' + datum.values",
        )
        .add_params(
            *(
                alt.param(
                    name=name,
                    value=options[0],
                    bind=alt.BindDirect(element=f"#{name}", event="change"),
                )
                for name, options in choices.items()
            ),
            alt.param(name="spans", value=_spans(table)),
            alt.param(name="shown", value=_shown(rows, _axes(choices))),
        )
        .properties(width="container", height=280, description=f"{method}: test accuracy against K")
        .configure(**LOOK)
        .to_dict()
    )


def _axes(choices: dict[str, list[str]]) -> dict[str, list[str]]:
    """The switches that leave lines out: all but the protocol."""
    return {name: options for name, options in choices.items() if name != "protocol"}


def _is_chosen(name: str) -> str:
    """A Vega expression: whether a switch leaves a point in."""
    return f"({name} === '{ALL}' || datum.{name} === '{ALL}' || datum.{name} === {name})"


def _points(table: pd.DataFrame, method: str, choices: dict[str, list[str]]) -> pd.DataFrame:
    """The rows of a method as points: numbers in place of text, and ``x``, K shifted by line."""
    rows = table[table["method"] == method].copy()
    rows[list(choices)] = rows[list(choices)].astype(str)
    if "alpha" in choices:
        rows.loc[rows["margin"] != "eqco", "alpha"] = ALL
    shift = shift_of(list(rows["line"].unique()), list(ticks_of(table)))
    rows["x"] = (rows["negatives"] * rows["line"].map(shift)).round(4)
    for name in ("mean", "std"):
        rows[name] = pd.to_numeric(rows[name]).astype(object).where(rows[name] != "", None)
    return rows


def _layers(
    table: pd.DataFrame, rows: pd.DataFrame, choices: dict[str, list[str]]
) -> list[alt.Chart]:
    """Lines, bars of a standard deviation, points, and crosses for holes."""
    columns = ["id", "line", "negatives", "x", "mean", "std", "accuracy", "values", *choices]
    points: list[Any] = rows[columns].to_dict("records")
    lines, axes = list(table["line"].unique()), list(_axes(choices))
    chart = alt.Chart(alt.InlineData(values=points)).encode(
        x=_x(table, rows), color=alt.Color("line:N", **_look(lines, COLORS, axes))
    )
    shape = alt.Shape("line:N", **_look(lines, SHAPES, axes))
    span = [alt.ExprRef(f"spans[protocol][{i}]") for i in (0, 1)]
    y = alt.Y("mean:Q", title="test accuracy [%]", scale=alt.Scale(zero=False, domain=span))
    about = {
        "tooltip": [
            alt.Tooltip("line:N", title="line"),
            alt.Tooltip("negatives:Q", title="K", format="d"),
            alt.Tooltip("accuracy:N", title="mean ± std"),
            alt.Tooltip("values:N", title="values"),
        ],
        "description": "described:N",  # for a screen reader
    }
    return [
        chart.mark_line(aria=False).encode(y=y),
        chart.transform_filter("isValid(datum.std)")
        .mark_rule(aria=False, strokeWidth=1.5)
        .encode(y="low:Q", y2="high:Q"),
        chart.mark_point(filled=True, size=60, opacity=1).encode(y=y, shape=shape, **about),
        chart.transform_filter("!isValid(datum.mean)")
        .mark_text(text="✕", size=16, fontWeight="bold", dy=-8)
        .encode(y=alt.value("height"), **about),
    ]


def _x(table: pd.DataFrame, rows: pd.DataFrame) -> alt.X:
    """The K axis: the same span for all methods, ticks at this method's K."""
    ticks = list(ticks_of(table))
    margin = 1.2 * max(shift_of(list(table["line"].unique()), ticks).values())
    domain = [int(ticks[0]) / margin, int(ticks[-1]) * margin]
    return alt.X(
        "x:Q",
        title="negatives an anchor, K",
        scale=alt.Scale(type="log", base=2, domain=domain, nice=False),
        axis=alt.Axis(values=[int(k) for k in ticks_of(rows)], format="d", labelOverlap="greedy"),
    )


def _look(lines: list[str], looks: tuple[str, ...], axes: list[str]) -> dict[str, Any]:
    """A scale that gives each line its colour or shape, and a legend of the lines shown."""
    return {
        "scale": alt.Scale(domain=lines, range=[looks[i % len(looks)] for i in range(len(lines))]),
        "legend": alt.Legend(
            values=alt.ExprRef(f"shown[join([{', '.join(axes)}], '|')]"),
            title=None,
            orient="bottom",
            direction="vertical",
            labelExpr="replace(datum.label, ', ', '\\n')",  # short enough for a phone
        ),
    }


def _spans(table: pd.DataFrame) -> dict[str, list[float]]:
    """The range of accuracies of each protocol, error bars included."""
    spans = {}
    for protocol, rows in table.groupby("protocol", sort=False):
        mean, std = (pd.to_numeric(rows[name]) for name in ("mean", "std"))
        low, high = (mean - std.fillna(0)).min(), (mean + std.fillna(0)).max()
        spans[str(protocol)] = [0.0, 100.0] if math.isnan(low) else [round(low, 2), round(high, 2)]
    return spans


def _shown(rows: pd.DataFrame, choices: dict[str, list[str]]) -> dict[str, list[str]]:
    """The lines that remain for each combination of choices, for the legend."""
    lines = {}
    for combination in product(*choices.values()):
        remaining = rows
        for name, value in zip(choices, combination, strict=True):
            if value != ALL:
                remaining = remaining[remaining[name].isin([ALL, value])]
        lines["|".join(combination)] = list(remaining["line"].unique())
    return lines


def curve(column: str, epochs: int) -> dict[str, Any]:
    """A number of the training against epochs, one line per seed.

    Args:
        column: of CURVES or KNN.
        epochs: of the training.

    Returns:
        A chart of the dataset ``history``, which the page inserts: rows with ``epoch``, ``seed``
        and the curves' columns.
    """
    titles = CURVES | KNN
    # with few epochs Vega would label half epochs, rounded to whole numbers
    ticks = {"values": list(range(1, epochs + 1))} if epochs < 5 else {"tickCount": 5}
    chart = alt.Chart(alt.NamedData("history"))
    if column in KNN:  # not of every epoch: a line from one to the next, and points
        chart = chart.transform_filter(f"isValid(datum.{column})")
    chart = chart.encode(
        x=alt.X("epoch:Q", axis=alt.Axis(format="d", **ticks), scale=alt.Scale(nice=False))
    )
    hover = alt.selection_point(
        name="hover", on="pointerover", clear="pointerout", nearest=True, fields=["epoch"]
    )
    legend = alt.Legend(title=None, orient="bottom", columns=3)
    line = chart.mark_line(aria=False, point=epochs < FEW or column in KNN).encode(
        y=alt.Y(f"{column}:Q", title=None, scale=alt.Scale(zero=False)),
        color=alt.Color("seed:N", scale=alt.Scale(range=COLORS), legend=legend),
    )
    values = (  # of all seeds at the epoch under the pointer
        chart.transform_pivot("seed", value=column, groupby=["epoch"])
        .mark_rule(aria=False, color="#555", tooltip=alt.TooltipContent(content="data"))
        .encode(opacity=alt.condition(hover, alt.value(1), alt.value(0), empty=False))
        .add_params(hover)
    )
    return (
        alt.layer(line, values)
        .properties(width="container", height=180, description=f"{titles[column]}, against epochs")
        .configure(**LOOK)
        .to_dict()
    )
