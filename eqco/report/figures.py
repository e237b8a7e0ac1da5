"""Accuracy, gradient and bound against the number of negatives, as figures."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd

from eqco.report.lines import COLORS, MARKERS, NAMES, lines_of, on_test, shift_of, ticks_of
from eqco.runtime.files import write

mpl.use("agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# equal inputs give equal bytes: no random ids here, no date in save
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "eqco",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
}


def style() -> AbstractContextManager[None]:
    """The project's style, for what is drawn or saved within."""
    return mpl.rc_context(STYLE)


@contextmanager
def drawing(rows: int, columns: int, size: tuple[float, float], **sharing: Any) -> Iterator[Any]:
    """A figure in the project's style, and its axes (rows, columns)."""
    with style():
        yield plt.subplots(
            rows, columns, figsize=size, layout="constrained", squeeze=False, **sharing
        )


def negatives(accuracies: pd.DataFrame, title: str, stem: Path) -> None:
    """Draw test accuracy against K, one line per margin or loss, to ``stem``.svg and ``stem``.png.

    Points are means over the seeds, bars one sample standard deviation. There is a panel per
    protocol and method. Several α, τ, batches or learning rates of a method are lines of their own.

    Args:
        accuracies: as from ``tables.read_study``.
        title: above the figure.
        stem: path without a suffix.
    """
    rows = on_test(accuracies.assign(line=lines_of(accuracies)))
    methods, lines = list(rows["method"].unique()), list(rows["line"].unique())
    protocols = list(rows["protocol"].unique())
    panels = [(method, protocol) for method in methods for protocol in protocols]
    shift = shift_of(lines, list(ticks_of(rows)))
    # a column per protocol, each with its own scale; a row per method
    height, width = max(len(methods), 1), len(protocols)
    size = (4 * width, 1.2 + 2.6 * height)
    with drawing(height, width, size, sharex=True, sharey="col") as (figure, axes):
        for axis, (method, protocol) in zip(axes.flat, panels, strict=True):
            panel = rows[(rows["method"] == method) & (rows["protocol"] == protocol)]
            for i, line in enumerate(lines):
                # a configuration with a failed seed is a gap, as in the table
                points = panel[panel["line"] == line].groupby("negatives")["accuracy"]
                mean = points.mean(skipna=False)
                axis.errorbar(
                    mean.index * shift[line],
                    mean,
                    yerr=points.std().fillna(0),
                    label=line,
                    color=COLORS[i % len(COLORS)],
                    marker=MARKERS[i % len(MARKERS)],
                    markersize=4,
                    capsize=3,
                )
            _k_axis(axis, rows)
            axis.set_title(f"{method}, {protocol}", fontsize=9)
        for axis in axes[-1]:
            axis.set_xlabel("negatives an anchor, K")
        for axis in axes[:, 0]:
            axis.set_ylabel("test accuracy [%]")
        finish(figure, axes, title)
        save(figure, stem)


def theory(curves: pd.DataFrame, title: str, stem: Path) -> None:
    """Draw the mean gradient and the bound against K to ``stem``.svg and ``stem``.png.

    Args:
        curves: rows of ``theory.curves``, with the encoder's name in ``encoder``.
        title: above the figure.
        stem: path without a suffix.
    """
    encoders = list(curves["encoder"].unique())
    panels = {
        "relative": "gradient ‖E ∂L/∂q‖, largest K = 1",
        "bound": "log(1 + K exp(m/τ)) − L [nats]",
    }
    size = (8, 1.2 + 2.6 * len(encoders))
    with drawing(len(encoders), 2, size, sharex=True) as (figure, axes):
        for row, encoder in zip(axes, encoders, strict=True):
            for axis, (column, label) in zip(row, panels.items(), strict=True):
                for i, margin in enumerate(curves["margin"].unique()):
                    line = curves[(curves["encoder"] == encoder) & (curves["margin"] == margin)]
                    axis.plot(
                        line["negatives"],
                        line[column],
                        label=NAMES[margin],
                        color=COLORS[i],
                        marker=MARKERS[i],
                        markersize=4,
                    )
                _k_axis(axis, curves)
                axis.set_title(f"{encoder} encoder", fontsize=9)
                axis.set_ylabel(label)
        for axis in axes[-1]:
            axis.set_xlabel("negatives an anchor, K")
        finish(figure, axes, title)
        save(figure, stem)


def gradients(table: pd.DataFrame, title: str, stem: Path) -> None:
    """Draw the parameters' mean gradients against K to ``stem``.svg and ``stem``.png.

    Args:
        table: rows of ``training.gradients.compare``, with the encoder's name in ``encoder``.
        title: above the figure.
        stem: path without a suffix.
    """
    labels = {"cosine": "cosine", "norm": "norm", "signal_to_noise": "signal to noise"}
    panels = list(table.groupby(["encoder", "sampling"], sort=False))
    size = (10, 1.4 + 2.4 * len(panels))
    with drawing(len(panels), 3, size, sharex=True) as (figure, axes):
        for row, ((encoder, sampling), rows) in zip(axes, panels, strict=True):
            for axis, (name, label) in zip(row, labels.items(), strict=True):
                for i, (loss, line) in enumerate(rows.groupby("loss", sort=False)):
                    axis.plot(
                        line["negatives"],
                        line[name],
                        label=loss,
                        color=COLORS[i],
                        marker=MARKERS[i],
                        markersize=4,
                    )
                axis.axhline(1, color="black", linewidth=0.8)
                _k_axis(axis, table)
                axis.set_title(f"{encoder} weights, {sampling} draws", fontsize=9)
                axis.set_ylabel(label)
        for axis in axes[-1]:
            axis.set_xlabel("negatives an anchor, K")
        finish(figure, axes, title)
        save(figure, stem)


def _k_axis(axis: Axes, rows: pd.DataFrame) -> None:
    axis.set_xscale("log", base=2)
    ticks = ticks_of(rows)
    axis.set_xticks(list(ticks), list(ticks.values()))
    axis.minorticks_off()


def finish(figure: Figure, axes: Any, title: str) -> None:
    """Add the legend of the first panel below, and the title."""
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fitting = int(13 * figure.get_figwidth() / (6 + max(map(len, labels), default=0)))
    columns = min(max(fitting, 1), 3)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8)
    figure.suptitle(title)


def save(figure: Figure, stem: Path) -> None:
    """Write ``stem``.svg and ``stem``.png, and close the figure."""
    for suffix in ("svg", "png"):
        write(stem.with_suffix(f".{suffix}"), image(figure, suffix))
    plt.close(figure)


def image(figure: Figure, suffix: str) -> bytes:
    """The figure as ``svg`` or ``png``; equal figures give equal bytes."""
    content = BytesIO()
    metadata = {"svg": {"Date": None}, "png": {"Software": None}}[suffix]
    with style():
        figure.savefig(content, format=suffix, dpi=150, metadata=metadata)
    return content.getvalue()
