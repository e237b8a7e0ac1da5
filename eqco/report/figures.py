"""Figures in files, for pages and print: charts that vl-convert draws as SVG and PNG.

Its own font is taken, so equal inputs give equal bytes on every machine.
"""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert
from PIL import Image

from eqco.report.charts import TEXT
from eqco.report.lines import COLORS, NAMES, SHAPES, lines_of, on_test, shift_of, ticks_of
from eqco.runtime.files import write

WIDTH, HEIGHT = 300, 190  # pixels of a panel
FONT = "Liberation Sans"  # vl-convert's; a browser without it has a font of the same widths
K = "negatives an anchor, K"


def negatives(accuracies: pd.DataFrame, title: str) -> alt.TopLevelMixin:
    """Test accuracy against K, a line per margin or loss.

    Points are means over the seeds, bars one sample standard deviation. There is a panel per
    protocol and method. Several α, τ, batches or learning rates of a method are lines of their own.

    Args:
        accuracies: as from ``tables.read_study``.
        title: above the figure.
    """
    rows = on_test(accuracies.assign(line=lines_of(accuracies)))
    seeds = rows.groupby(["method", "protocol", "line", "negatives"], sort=False)["accuracy"]
    # a configuration with a failed seed is a gap, as in the table
    mean, std = seeds.apply(lambda values: values.mean(skipna=False)), seeds.std().fillna(0)
    points = pd.DataFrame({"y": mean, "low": mean - std, "high": mean + std}).reset_index()
    panels = []
    for method, of_method in points.groupby("method", sort=False):
        for protocol in points["protocol"].unique():
            # a scale per protocol
            of_protocol = points[points["protocol"] == protocol]
            span = [of_protocol["low"].min(), of_protocol["high"].max()]
            panel = against_k(
                of_method[of_method["protocol"] == protocol],
                lines=list(points["line"].unique()),
                ticks=ticks_of(points),
                title="test accuracy [%]",
                span=span,
            )
            panels.append(panel.properties(title=f"{method}, {protocol}"))
    several = points["method"].nunique() > 1  # then a row per method
    return grid(panels, title, columns=points["protocol"].nunique() if several else 2)


def theory(curves: pd.DataFrame, title: str) -> alt.TopLevelMixin:
    """The mean gradient and the bound against K.

    Args:
        curves: rows of ``theory.curves``, with the encoder's name in ``encoder``.
        title: above the figure.
    """
    titles = {
        "relative": "gradient ‖E ∂L/∂q‖, largest K = 1",
        "bound": "log(1 + K exp(m/τ)) − L [nats]",
    }
    named = curves.assign(line=curves["margin"].map(NAMES))
    panels = [
        _curves(rows, named, column, label).properties(title=f"{encoder} encoder")
        for encoder, rows in named.groupby("encoder", sort=False)
        for column, label in titles.items()
    ]
    return grid(panels, title, columns=len(titles))


def gradients(table: pd.DataFrame, title: str) -> alt.TopLevelMixin:
    """The parameters' mean gradients against K.

    Args:
        table: rows of ``training.gradients.compare``, with the encoder's name in ``encoder``.
        title: above the figure.
    """
    titles = {"cosine": "cosine", "norm": "norm", "signal_to_noise": "signal to noise"}
    named = table.assign(line=table["loss"])
    one = alt.Chart(values(pd.DataFrame({"one": [1]}))).mark_rule()
    panels = [
        alt.layer(
            one.encode(y=alt.Y("one:Q", title=label)), _curves(rows, named, column, label)
        ).properties(title=f"{encoder} weights, {sampling} draws")
        for (encoder, sampling), rows in named.groupby(["encoder", "sampling"], sort=False)
        for column, label in titles.items()
    ]
    return grid(panels, title, columns=len(titles))


def _curves(rows: pd.DataFrame, named: pd.DataFrame, column: str, title: str) -> Any:
    lines = list(named["line"].unique())
    return against_k(rows.assign(y=rows[column]), lines=lines, ticks=ticks_of(named), title=title)


def against_k(
    points: pd.DataFrame,
    *,
    lines: Sequence[str],
    ticks: dict[int, str],
    title: str | None,
    span: Sequence[float] | None = None,
    by: str = "line",
    names: Sequence[str] | None = None,
    **more: Any,
) -> Any:
    """Lines over the K axis, with bars where there is an interval.

    Args:
        points: with ``negatives``, ``line`` and ``y``, and ``low`` and ``high`` of an interval. A
            point without a ``y`` is a gap.
        lines: all of the figure, in the order in which they lie side by side.
        ticks: of ``lines.ticks_of``.
        title: of the vertical axis.
        span: of the vertical axis, where panels share it.
        by: the column that gives a line its colour and shape.
        names: all of that column's values in the figure, in the order of their looks.
        more: further channels of the lines.
    """
    shift = shift_of(list(lines), list(ticks))
    ks = list(ticks)
    margin = 1.1 * max(shift.values())
    placed = points.assign(x=points["negatives"] * points["line"].map(shift))
    labels = json.dumps({str(k): label for k, label in ticks.items()})
    x = alt.X(
        "x:Q",
        title=K,
        scale=alt.Scale(type="log", base=2, domain=[ks[0] / margin, ks[-1] * margin], nice=False),
        axis=alt.Axis(values=ks, labelExpr=f"{labels}[datum.value]", labelOverlap="greedy"),
    )
    scale = alt.Scale(domain=list(span), nice=True) if span else alt.Scale(zero=False)
    y, low = (alt.Y(f"{name}:Q", title=title, scale=scale) for name in ("y", "low"))
    chart = alt.Chart(values(placed)).encode(x=x, color=color(by, names or lines))
    layers = [
        chart.mark_line(strokeWidth=1.5).encode(y=y, **more),
        chart.mark_point(filled=True, size=30, opacity=1).encode(
            y=y, shape=shape(by, names or lines)
        ),
    ]
    if "low" in points:
        layers.insert(0, chart.mark_rule().encode(y=low, y2="high:Q"))
    return alt.layer(*layers)


def color(field: str, names: Sequence[str]) -> alt.Color:
    """A colour for each name, the same in all panels, told below the figure."""
    return alt.Color(f"{field}:N", title=None, scale=_cycle(names, COLORS))


def shape(field: str, names: Sequence[str]) -> alt.Shape:
    """A shape for each name, told with its colour."""
    return alt.Shape(f"{field}:N", title=None, scale=_cycle(names, SHAPES))


def _cycle(names: Sequence[str], looks: tuple[str, ...]) -> alt.Scale:
    return alt.Scale(domain=list(names), range=[looks[i % len(looks)] for i, _ in enumerate(names)])


def values(rows: pd.DataFrame) -> alt.InlineData:
    """Rows as data of a chart; what is no number is a hole."""
    return alt.InlineData(values=json.loads(rows.to_json(orient="records", double_precision=6)))


def grid(panels: Sequence[Any], title: str, columns: int) -> alt.TopLevelMixin:
    """Panels in rows of ``columns``, one legend below, a title above."""
    sized = [panel.properties(width=WIDTH, height=HEIGHT) for panel in panels]
    return look(alt.concat(*sized, columns=columns), title)


def look(chart: Any, title: str) -> alt.TopLevelMixin:
    """The chart in the project's style."""
    above = alt.TitleParams(title, anchor="middle", fontSize=13)
    text: dict[str, Any] = {**TEXT, "labelLimit": 0}
    legend = {**text, "orient": "bottom", "columns": 3, "symbolOpacity": 1}
    return chart.properties(title=above).configure(
        font=f"{FONT}, Arial, sans-serif",
        background="white",
        axis=alt.AxisConfig(**text, gridOpacity=0.6),
        legend=alt.LegendConfig(**legend),
        title=alt.TitleConfig(fontSize=12, fontWeight="normal", frame="group"),
    )


def svg(chart: alt.TopLevelMixin) -> str:
    """The chart as SVG; equal charts give equal text."""
    version = alt.SCHEMA_VERSION.rpartition(".")[0]
    return vl_convert.vegalite_to_svg(chart.to_dict(), vl_version=version)


def save(chart: alt.TopLevelMixin, stem: Path) -> None:
    """Write ``stem``.svg and ``stem``.png."""
    drawn = svg(chart)
    write(stem.with_suffix(".svg"), drawn)
    content = BytesIO()
    with Image.open(BytesIO(vl_convert.svg_to_png(drawn, scale=2))) as image:
        image.convert("RGB").save(content, "png", optimize=True)  # a quarter of the bytes
    write(stem.with_suffix(".png"), content.getvalue())
