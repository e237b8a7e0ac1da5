"""The results table of a study, from its cells: one row per configuration and protocol."""

import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from eqco.errors import InputError
from eqco.report.columns import COLUMNS, SELECTED, column, configuration, settings
from eqco.report.noise import losses
from eqco.report.published import TUNED, matches
from eqco.store.archive import stand_ins
from eqco.store.cells import read_cell
from eqco.study.axes import name_of, text
from eqco.study.cell import Cell
from eqco.study.fields import WITH_MARGIN
from eqco.study.grid import Grid
from eqco.study.study import Study

HOLES = ("failed", "missing")  # keys of a summary that say why a cell has no accuracy
# columns headed by their symbols in Markdown; the others by their names, as in table.csv
SYMBOLS = ("negatives", "margin", "alpha", "temperature", "seeds", "values")


def read_study(
    grid: Grid, results: Path, *, unfinished: bool = False
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Read every accuracy of a study, and the summaries of its pretrainings.

    Args:
        grid: the study's grid.
        results: the study's folder, which holds ``cells/`` or their archive.
        unfinished: whether a cell may be missing.

    Returns:
        A row per cell and protocol, in the grid's order, and a summary per cell. The columns are
        the configuration (its axes, α and τ), ``seed``, ``accuracy`` in
        percent, NaN in a hole, ``hole``: ``failed``, ``missing`` or empty, ``correct``, which test
        images are right, as ``images.pack`` packs it, or None, and ``losses``, of
        ``noise.losses``. The summary of a missing cell holds the reason, ``missing``.

    Raises:
        InputError: if a cell's files are missing or belong to another run.
    """
    rows, summaries, evaluate = [], [], grid.study.evaluate
    archived = stand_ins(grid, results)
    for path, cell in grid.cells.items():
        folder = results / "cells" / path
        summary: dict[str, Any]
        accuracies: dict[str, float] = {}
        try:
            summary, accuracies = read_cell(folder, cell.hash, evaluate, archived.get(path))
        except InputError as error:
            if not unfinished:
                raise
            summary = {"missing": str(error)}
        hole = next((name for name in HOLES if summary.get(name)), "")
        summaries.append(summary)
        row, lost = _configuration(cell.cell, grid), losses(summary)
        for protocol in grid.study.protocols:
            rows.append(
                {
                    **row,
                    "protocol": protocol,
                    "seed": cell.cell.seed,
                    "accuracy": math.nan if hole else accuracies[protocol],
                    "hole": hole,
                    "correct": summary.get("correct", {}).get(protocol),
                    "losses": lost,
                }
            )
    return pd.DataFrame(rows), summaries


def _configuration(cell: Cell, grid: Grid) -> dict[str, int | str]:
    """The configuration of a cell: its axes, α and τ; empty where it does not read an axis.

    A selected axis is the last, under another name.
    """
    axes, has_margin = grid.axes, cell.loss in WITH_MARGIN
    columns: dict[str, int | str] = {
        "method": cell.method,
        **({"loss": cell.loss} if "loss" in axes else {}),
        "negatives": cell.negatives,
        "margin": text(cell.margin) if has_margin else "",
        "alpha": text(cell.effective_alpha) if has_margin else "",
        "temperature": text(cell.temperature),
    }
    others: dict[str, int | str] = {"batch": cell.batch, "lr": text(cell.lr)}
    others |= {name_of(key): text(value) for key, value in cell.settings}
    columns |= {name: others.get(name, "") for name in axes if name not in (*columns, "seed")}
    if grid.study.select:
        axis = grid.study.select.axis
        columns[SELECTED + axis] = columns.pop(axis)
    return columns


def aggregate(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Mean, sample standard deviation and values over the seeds, one row per configuration.

    Numbers are text with two decimals. The standard deviation of one seed is empty. A seed without
    a value shows ``failed`` or ``missing``, and its row has no mean: a mean over the other seeds
    would be one of the successful seeds alone.
    """

    def decimals(value: float) -> str:
        return "" if math.isnan(value) else f"{value:.2f}"

    def over_seeds(group: pd.DataFrame) -> pd.Series:
        values = group["accuracy"]
        return pd.Series(
            {
                "seeds": len(group),
                "mean": decimals(values.mean(skipna=False)),
                "std": decimals(values.std(ddof=1, skipna=False)),
                "values": " ".join(values.map(decimals).where(group["hole"] == "", group["hole"])),
            }
        )

    keys = [*configuration(accuracies), "protocol"]
    groups = accuracies.groupby(keys, sort=False)[["accuracy", "hole"]]
    return groups.apply(over_seeds).reset_index()


def beside_published(table: pd.DataFrame, grid: Grid, file: Path) -> pd.DataFrame:
    """Add the published accuracies of each row, and our mean minus each, in percentage points.

    They are the columns ``published`` (values, each with its paper and protocol) and
    ``difference``. The table stays as it is if nothing was published for any row. A number for the
    best of several temperatures stands beside the best of ours, and says so.

    Args:
        table: of ``aggregate``.
        grid: the study's grid.
        file: the published numbers.
    """
    configurations = {
        tuple({**_configuration(one.cell, grid), "protocol": protocol}.items()): (
            one.cell,
            protocol,
        )
        for one in grid.cells.values()
        for protocol in grid.study.protocols
    }  # once for all seeds
    sources = pd.DataFrame(
        {**dict(configuration), "sources": matches(grid.study, *of, file).to_dict("records")}
        for configuration, of in configurations.items()
    )
    keys = [name for name in sources if name != "sources"]
    merged = table.merge(sources, on=keys, how="left", validate="one_to_one")
    comparable = [
        [source for source in row if is_best or source["temperature"] != TUNED]
        for row, is_best in zip(merged["sources"], _best_temperature(table), strict=True)
    ]
    if not any(comparable):
        return table
    means = pd.to_numeric(table["mean"])  # not a number in a hole
    return table.assign(
        published=["; ".join(map(_number, row)) for row in comparable],
        difference=[
            "" if math.isnan(ours) else " ".join(f"{ours - s['value']:+.2f}" for s in row)
            for ours, row in zip(means, comparable, strict=True)
        ],
    )


def _number(source: dict[Hashable, Any]) -> str:
    """A published number with its paper and protocol."""
    tuned = ", best τ" * (source["temperature"] == TUNED)
    return f"{source['value']:g} {source['paper']} ({source['protocol']}{tuned})"


def _best_temperature(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether a row's mean is the highest of several rows that differ in τ alone, none missing."""
    others = ("temperature", "seeds", "mean", "std", "values")
    same = [table[name] for name in table if name not in others]

    def best(means: "pd.Series[float]") -> "pd.Series[bool]":
        several = len(means) > 1 and bool(means.notna().all())
        return means.eq(means.max()) & several

    return pd.to_numeric(table["mean"]).groupby(same, sort=False).transform(best).astype(bool)


def metrics(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mean accuracies in percent by protocol and configuration, for ``dvc metrics``.

    A configuration is named by its method, K and m, and by the other columns that differ within
    the table.
    """
    others = [name for name in ("loss", *settings(table)) if name in table]
    names = ["method", "negatives", "margin"]
    names += [name for name in others if table[name].nunique() > 1]
    names += ["alpha"] * (table[table["margin"] == "eqco"]["alpha"].nunique() > 1)
    symbols = {name: f"{column(name).symbol}=" for name in names}
    symbols |= {"method": "", "loss": ""}  # their values are words
    means: dict[str, dict[str, float]] = {}
    for row in table.to_dict("records"):
        label = " ".join(f"{symbols[name]}{row[name]}" for name in names if row[name] != "")
        if row["mean"]:
            means.setdefault(row["protocol"], {})[label] = float(row["mean"])
    return means


def notes(study: Study, summaries: list[dict[str, Any]]) -> list[str]:
    """Notes on the study's protocols, for a reader of the numbers.

    Args:
        study: the study.
        summaries: of ``read_study``.
    """
    sizes = [s["smallest_class"] for s in summaries if s.get("smallest_class")]
    smallest = min(sizes, default=None)
    return [
        f"`{protocol}`: k = {k} is more than the {smallest} training images of the smallest class: "
        "images of other classes always vote too."
        for protocol, k in study.evaluate.knn.votes.items()
        if smallest is not None and k > smallest
    ]


def geometry(accuracies: pd.DataFrame, summaries: list[dict[str, Any]]) -> pd.DataFrame:
    """Alignment, uniformity and RankMe: mean ± sample deviation over seeds, by configuration.

    Empty if a cell does not have them; a hole has none, and is left out.

    Args:
        accuracies: of ``read_study``.
        summaries: of ``read_study``.
    """
    rows = accuracies[accuracies["protocol"] == accuracies["protocol"].iloc[0]]
    found = [summary.get("geometry") for summary in summaries]
    whole = (rows["hole"] == "").tolist()
    measured = [one for one, is_whole in zip(found, whole, strict=True) if is_whole]
    if not any(found) or None in measured:
        return pd.DataFrame()
    keys = configuration(accuracies)
    numbers = pd.DataFrame([one or {} for one in found], index=rows.index)
    groups = pd.concat([rows[keys], numbers], axis=1)[whole].groupby(keys, sort=False)
    means, deviations = groups.mean(), groups.std()

    def shown(name: str) -> list[str]:
        pairs = zip(means[name], deviations[name], strict=True)
        return [f"{m:.3f}" + f" ± {s:.3f}" * (s == s) for m, s in pairs]

    return means.index.to_frame(index=False).assign(**{name: shown(name) for name in means})


def markdown(table: pd.DataFrame, notes: list[str]) -> str:
    """The table in Markdown: mean and deviation in one column, the papers' symbols as heads."""
    deviation = table["std"].map(lambda std: f" ± {std}" if std else "")
    columns = table.assign(mean=table["mean"] + deviation).drop(columns="std")
    symbols = {name: COLUMNS[name].symbol for name in SYMBOLS}
    heads = columns.rename(columns={**symbols, "mean": COLUMNS["accuracy"].symbol})
    below = "".join(f"\n{note}\n" for note in notes)
    return heads.to_markdown(index=False, disable_numparse=True) + "\n" + below
