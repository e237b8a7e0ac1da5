"""The charts of a report, as Vega-Lite that a reader's browser draws."""

import math
from itertools import product
from typing import Any

import altair as alt
import pandas as pd

from eqco.report.lines import COLORS, aside_of, ticks_of

# one for each of lines.MARKERS
SHAPES = (
    *("circle", "square", "triangle-up", "diamond", "triangle-down"),
    *("triangle-left", "triangle-right", "cross"),
    "M-1,-.6L-.6,-1L0,-.4L.6,-1L1,-.6L.4,0L1,.6L.6,1L0,.4L-.6,1L-1,.6L-.4,0Z",  # X
    "M0,-1L.25,-.3H1L.4,.1L.6,.8L0,.4L-.6,.8L-.4,.1L-1,-.3H-.25Z",  # a star
)
CURVES = {  # of a history, and what they are
    "loss": "loss [nats], mean of the epoch",
    "weight": "weight W, last step",
    "positive": "similarity of positives, last step",
    "negative": "similarity of negatives, last step",
    "gradient": "gradient ‖∂L/∂q‖, last step",
    "images_per_s": "images/s",
}
ALL = "all"  # the choice that leaves nothing out
FEW = 20  # epochs whose points are drawn: one alone has no line
TEXT = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 300}
LOOK: dict[str, Any] = {
    "font": "system-ui, sans-serif",
    "lineBreak": "\n",
    "axis": TEXT,
    "legend": TEXT,
}


def switches(table: pd.DataFrame) -> dict[str, list[str]]:
    """What a reader may choose: a protocol, and a value of each axis that has several.

    Args:
        table: of ``tables.aggregate``.
    """
    choices = {"protocol": list(table["protocol"].unique())}
    for name in ("alpha", "temperature", "batch", "lr", "weight_decay"):
        if name in table:
            # another margin's α is derived from its K: nothing to choose
            rows = table[table["margin"] == "eqco"] if name == "alpha" else table
            values = [str(value) for value in rows[name].unique()]
            if len(values) > 1:
                choices[name] = [ALL, *values]
    return choices


def against_k(table: pd.DataFrame, method: str) -> dict[str, Any]:
    """Accuracy against K of one method, a line a margin or loss.

    It reads the switches from the page's elements of their names. A row without a mean is a cross
    at the foot. Every method's chart has the same axes and looks of lines.

    Args:
        table: of ``tables.aggregate``, with its row's ``line``, ``accuracy`` as text and ``id``,
            which the points of the chart have too.
        method: the method.
    """
    choices = switches(table)
    rows = table[table["method"] == method].copy()
    rows[list(choices)] = rows[list(choices)].astype(str)
    if "alpha" in choices:
        rows.loc[rows["margin"] != "eqco", "alpha"] = ALL
    ticks = [int(k) for k in ticks_of(table)]
    aside = aside_of(list(rows["line"].unique()), ticks)
    rows["x"] = (rows["negatives"] * rows["line"].map(aside)).round(4)
    for name in ("mean", "std"):
        rows[name] = pd.to_numeric(rows[name]).astype(object).where(rows[name] != "", None)
    columns = ["id", "line", "negatives", "x", "mean", "std", "accuracy", "values", *choices]
    points: list[Any] = rows[columns].to_dict("records")
    every_line = list(table["line"].unique())
    beyond = 1.2 * max(aside_of(every_line, ticks).values())
    domain = [ticks[0] / beyond, ticks[-1] * beyond]
    axes = [name for name in choices if name != "protocol"]

    def look(values: tuple[str, ...]) -> dict[str, Any]:
        return {
            "scale": alt.Scale(
                domain=every_line, range=[values[i % len(values)] for i in range(len(every_line))]
            ),
            "legend": alt.Legend(
                values=alt.ExprRef(f"shown[join([{', '.join(axes)}], '|')]"),
                title=None,
                orient="bottom",
                direction="vertical",
                labelExpr="replace(datum.label, ', ', '\\n')",  # short enough for a phone
            ),
        }

    x = alt.X(
        "x:Q",
        title="negatives an anchor, K",
        scale=alt.Scale(type="log", base=2, domain=domain, nice=False),
        axis=alt.Axis(values=[int(k) for k in ticks_of(rows)], format="d", labelOverlap="greedy"),
    )
    span = [alt.ExprRef(f"spans[protocol][{i}]") for i in (0, 1)]
    y = alt.Y("mean:Q", title="test accuracy [%]", scale=alt.Scale(zero=False, domain=span))
    point = {
        "tooltip": [
            alt.Tooltip("line:N", title="line"),
            alt.Tooltip("negatives:Q", title="K", format="d"),
            alt.Tooltip("accuracy:N", title="mean ± std"),
            alt.Tooltip("values:N", title="values"),
        ],
        "description": "described:N",  # for a screen reader
    }
    drawn = alt.Chart(alt.InlineData(values=points)).encode(
        x=x, color=alt.Color("line:N", **look(COLORS))
    )
    chosen = [
        f"({name} === '{ALL}' || datum.{name} === '{ALL}' || datum.{name} === {name})"
        for name in choices
    ]
    return (
        alt.layer(
            drawn.mark_line(aria=False).encode(y=y),
            drawn.transform_filter("isValid(datum.std)")
            .mark_rule(aria=False, strokeWidth=1.5)
            .encode(y="low:Q", y2="high:Q"),
            drawn.mark_point(filled=True, size=60, opacity=1).encode(
                y=y, shape=alt.Shape("line:N", **look(SHAPES)), **point
            ),
            drawn.transform_filter("!isValid(datum.mean)")
            .mark_text(text="✕", size=16, fontWeight="bold", dy=-8)
            .encode(y=alt.value("height"), **point),
        )
        .transform_filter(" && ".join(chosen))
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
            alt.param(name="shown", value=_shown(rows, {name: choices[name] for name in axes})),
        )
        .properties(width="container", height=280, description=f"{method}: test accuracy against K")
        .configure(**LOOK)
        .to_dict()
    )


def _spans(table: pd.DataFrame) -> dict[str, list[float]]:
    """From the lowest bar to the highest of each protocol."""
    spans = {}
    for protocol, rows in table.groupby("protocol", sort=False):
        mean, std = (pd.to_numeric(rows[name]) for name in ("mean", "std"))
        low, high = (mean - std.fillna(0)).min(), (mean + std.fillna(0)).max()
        spans[str(protocol)] = [0.0, 100.0] if math.isnan(low) else [round(low, 2), round(high, 2)]
    return spans


def _shown(rows: pd.DataFrame, choices: dict[str, list[str]]) -> dict[str, list[str]]:
    """The lines that each combination of choices leaves, for the legend."""
    shown = {}
    for combination in product(*choices.values()):
        left = rows
        for name, value in zip(choices, combination, strict=True):
            if value != ALL:
                left = left[left[name].isin([ALL, value])]
        shown["|".join(combination)] = list(left["line"].unique())
    return shown


def curve(column: str, epochs: int) -> dict[str, Any]:
    """A number of the training against epochs, a line a seed.

    Args:
        column: of CURVES.
        epochs: of the training.

    Returns:
        A chart of the dataset ``history``, which the page puts in: rows with ``epoch``, ``seed``
        and the columns of CURVES.
    """
    # of few epochs Vega would write halves, as whole numbers
    whole = {"values": list(range(1, epochs + 1))} if epochs < 5 else {"tickCount": 5}
    drawn = alt.Chart(alt.NamedData("history")).encode(
        x=alt.X("epoch:Q", axis=alt.Axis(format="d", **whole), scale=alt.Scale(nice=False))
    )
    hover = alt.selection_point(
        name="hover", on="pointerover", clear="pointerout", nearest=True, fields=["epoch"]
    )
    legend = alt.Legend(title=None, orient="bottom", columns=3)
    line = drawn.mark_line(aria=False, point=epochs < FEW).encode(
        y=alt.Y(f"{column}:Q", title=None, scale=alt.Scale(zero=False)),
        color=alt.Color("seed:N", scale=alt.Scale(range=COLORS), legend=legend),
    )
    values = (  # of all seeds at the epoch under the pointer
        drawn.transform_pivot("seed", value=column, groupby=["epoch"])
        .mark_rule(aria=False, color="#555", tooltip=alt.TooltipContent(content="data"))
        .encode(opacity=alt.condition(hover, alt.value(1), alt.value(0), empty=False))
        .add_params(hover)
    )
    return (
        alt.layer(line, values)
        .properties(width="container", height=180, description=f"{CURVES[column]}, against epochs")
        .configure(**LOOK)
        .to_dict()
    )
