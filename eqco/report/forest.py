"""A study's comparisons and claims as figures: differences with intervals, and their bounds."""

import textwrap
from collections.abc import Iterable
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from eqco.report import figures
from eqco.report.claims import CONTRADICTED, SUPPORTED, UNDECIDED
from eqco.report.columns import column
from eqco.report.lines import COLORS, MARKERS, NAMES, on_test, ticks_of
from eqco.study.claims import Comparison

ROW = 0.17  # inches per interval
LOOKS = {SUPPORTED: (COLORS[1], "o"), CONTRADICTED: (COLORS[0], "X"), UNDECIDED: ("0.45", "s")}


def draw(comparisons: Iterable[Comparison], tables: dict[str, pd.DataFrame], title: str) -> Any:
    """Draw a panel for each comparison; return the figure, to be saved by ``figures.save``.

    A comparison with another K is a curve against K; any other has a row per configuration. Bars
    are 95 % intervals, the grey band is the equivalence bound. Protocols on the test images alone.

    Args:
        comparisons: of the study.
        tables: theirs, by name, of ``comparisons.compare``.
        title: above the figure.
    """
    tables = {name: on_test(table).reset_index(drop=True) for name, table in tables.items()}
    drawn = [comparison for comparison in comparisons if comparison.name in tables]
    heights = [
        2.4 if _is_curve(comparison) else 0.7 + ROW * len(tables[comparison.name])
        for comparison in drawn
    ]
    protocols = list(
        dict.fromkeys(p for comparison in drawn for p in tables[comparison.name]["protocol"])
    )
    looks = {
        protocol: {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)]}
        for i, protocol in enumerate(protocols)
    }
    size = (7.5, 1 + sum(heights))
    with figures.drawing(len(drawn), 1, size, height_ratios=heights) as (figure, axes):
        for axis, comparison in zip(axes[:, 0], drawn, strict=True):
            table = tables[comparison.name]
            panel = _curve if _is_curve(comparison) else _rows
            panel(axis, table, comparison, looks)
            axis.set_title(_title(comparison), fontsize=9)
        handles: dict[str, Any] = {}
        for axis in axes[:, 0]:
            handles |= dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8
        )
        figure.suptitle(title)
        return figure


def draw_claims(table: pd.DataFrame, title: str) -> Any:
    """Draw a row for each claim: its difference, 95 % interval and verdict; return the figure.

    The grey bar behind a row is the bound within which a difference is of no interest.

    Args:
        table: of ``claims.claims``.
        title: above the figure.
    """
    labels = [textwrap.fill(claim, 52) for claim in table["claim"]]
    heights = [0.18 + 0.13 * (1 + label.count("\n")) for label in labels]
    with figures.drawing(1, 1, (7.5, 0.9 + sum(heights))) as (figure, axes):
        axis: Axes = axes[0, 0]
        edge, places = 0.0, []
        for row, height in zip(table.to_dict("records"), heights, strict=True):
            y, edge = edge + height / 2, edge + height
            places.append(y)
            if pd.notna(bound := row["equivalence"]):
                axis.broken_barh([(-bound, 2 * bound)], (edge - height, height), color="0.9")
            color, marker = LOOKS[row["verdict"]]
            look: dict[str, Any] = {"color": color, "marker": marker, "markersize": 5, "capsize": 2}
            middle = row["difference"]
            error = [[middle - row["low"]], [row["high"] - middle]]
            axis.errorbar([middle], [y], xerr=error, linestyle="none", **look)
            beside: dict[str, Any] = {
                "xycoords": ("axes fraction", "data"),
                "va": "center",
                "fontsize": 8,
            }
            axis.annotate(row["verdict"], (1.01, y), color=color, **beside)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_yticks(places, labels, fontsize=8)
        axis.set_ylim(edge, 0)
        axis.set_xlabel("difference, points, with its 95 % interval")
        figure.suptitle(title)
        return figure


def svg(comparisons: Iterable[Comparison], tables: dict[str, pd.DataFrame], title: str) -> bytes:
    """The figure as SVG, for a page. Arguments as for ``draw``."""
    figure = draw(comparisons, tables, title)
    image = figures.image(figure, "svg")
    figures.plt.close(figure)
    return image


def _is_curve(comparison: Comparison) -> bool:
    return set(comparison.against) == {"negatives"}


def _title(comparison: Comparison) -> str:
    against = ", ".join(
        f"{column(axis).symbol} = {value}" for axis, value in comparison.against.items()
    )
    return f"{comparison.name}: less {against}, points"


def _varying(table: pd.DataFrame, but: tuple[str, ...]) -> list[str]:
    axes = [str(name) for name in table][: list(table).index("test")]
    return [name for name in axes if name not in but and table[name].nunique() > 1]


def _rows(
    axis: Axes, table: pd.DataFrame, comparison: Comparison, looks: dict[str, dict[str, Any]]
) -> None:
    """A row per configuration and protocol; the configurations from top to bottom."""
    names = _varying(table, ("protocol",)) or list(comparison.against)
    names = [name for name in names if name in table]
    labels = [
        ", ".join(f"{column(name).symbol} {row[name]}" for name in names)
        for row in table.to_dict("records")
    ]
    order = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    protocols = list(table["protocol"].unique())
    apart = 0.7 / len(protocols)
    for i, protocol in enumerate(protocols):
        rows = table[table["protocol"] == protocol]
        y = [order[labels[j]] + (i - (len(protocols) - 1) / 2) * apart for j in rows.index]
        error = [rows["difference"] - rows["low"], rows["high"] - rows["difference"]]
        color = looks[protocol]["color"]
        axis.errorbar(rows["difference"], y, xerr=error, fmt="none", capsize=2, ecolor=color)
        axis.plot(
            rows["difference"], y, linestyle="none", markersize=4, label=protocol, **looks[protocol]
        )
    axis.axvline(0, color="black", linewidth=0.8)
    if comparison.equivalence:
        axis.axvspan(-comparison.equivalence, comparison.equivalence, color="0.9", zorder=0)
    axis.set_yticks(list(order.values()), list(order), fontsize=8)
    axis.set_ylim(len(order) - 0.5, -0.5)


def _curve(
    axis: Axes, table: pd.DataFrame, comparison: Comparison, looks: dict[str, dict[str, Any]]
) -> None:
    """The difference against K, a line per configuration and protocol."""
    names = _varying(table, ("negatives", "protocol", "alpha"))
    groups = table.groupby([*names, "protocol"], sort=False)
    styles = ["-", "--", ":", "-."]
    seen: dict[Any, str] = {}
    for i, (key, rows) in enumerate(groups):
        *values, protocol = map(str, key)
        style = seen.setdefault(tuple(values), styles[len(seen) % len(styles)])
        label = ", ".join([*(NAMES.get(value, value) for value in values), protocol])
        ordered = rows.sort_values("negatives")
        error = [
            ordered["difference"] - ordered["low"],
            ordered["high"] - ordered["difference"],
        ]
        shift = 1.02 ** (i - (len(groups) - 1) / 2)
        axis.errorbar(
            ordered["negatives"] * shift,
            ordered["difference"],
            yerr=error,
            linestyle=style,
            markersize=4,
            capsize=2,
            label=label,
            **looks[protocol],
        )
    axis.axhline(0, color="black", linewidth=0.8)
    if comparison.equivalence:
        axis.axhspan(-comparison.equivalence, comparison.equivalence, color="0.9", zorder=0)
    axis.set_xscale("log", base=2)
    ticks = ticks_of(table)
    axis.set_xticks(list(ticks), list(ticks.values()))
    axis.minorticks_off()
    axis.set_xlabel("negatives an anchor, K")
