"""From the files of a study's cells to its table: one row a configuration and protocol."""

import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from eqco.errors import InputError
from eqco.report.published import TUNED, matches
from eqco.store.archive import stand_ins
from eqco.store.cells import read_cell
from eqco.study.grid import axes, cells, hashes, text
from eqco.study.study import Cell, Study

CHOSEN = ("loss", "batch", "lr", "weight_decay")  # columns of a study that has them as axes
HOLES = ("failed", "missing")  # keys of a summary that say why a cell has no accuracy


def effective_alpha(cell: Cell) -> float:
    """α = K exp(m/τ): the number of negatives whose plain InfoNCE a cell's loss weighs like.

    EqCo's own α for its margin; K for margin 0; infinite for margin ∞ (DCL). Of InfoNCE alone.
    """
    if cell.margin == "eqco":
        assert cell.alpha is not None
        return cell.alpha
    try:
        return cell.negatives * math.exp(cell.margin / cell.temperature)
    except OverflowError:
        return math.inf


def read_study(
    study: Study, results: Path, source: str, *, unfinished: bool = False
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Every accuracy of a study, and the summaries of its pretrainings.

    Args:
        study: the study.
        results: its folder, which holds ``cells/``, or what was kept of it.
        source: the study file's name, for messages.
        unfinished: whether a cell may be missing.

    Returns:
        A row a cell and protocol, in the grid's order: its configuration (those of ``CHOSEN`` where
        the study has them as axes), ``seed``, ``accuracy`` in percent, not a number in a hole, and
        ``hole``: ``failed`` where the training failed, ``missing``, or nothing; and the summaries,
        a cell each, of a missing one why it is: ``missing``.

    Raises:
        InputError: when a cell's files are missing or belong to another run.
    """
    rows, summaries, named, grid = [], [], axes(study), cells(study, source)
    configs = hashes(study, grid)
    kept = stand_ins(configs, study.evaluate, results)
    for path, cell in grid.items():
        folder = results / "cells" / path
        summary: dict[str, Any]
        accuracies: dict[str, float] = {}
        try:
            summary, accuracies = read_cell(folder, configs[path], study.evaluate, kept.get(path))
        except InputError as error:
            if not unfinished:
                raise
            summary = {"missing": str(error)}
        hole = next((name for name in HOLES if summary.get(name)), "")
        summaries.append(summary)
        row = _configuration(cell, named)
        for protocol in study.evaluate.protocols:
            rows.append(
                {
                    **row,
                    "protocol": protocol,
                    "seed": cell.seed,
                    "accuracy": math.nan if hole else accuracies[protocol],
                    "hole": hole,
                }
            )
    return pd.DataFrame(rows), summaries


def _configuration(cell: Cell, named: list[str]) -> dict[str, int | str]:
    has_margin = cell.loss == "info-nce"
    columns: dict[str, int | str] = {
        "method": cell.method,
        "loss": cell.loss,
        "negatives": cell.negatives,
        "margin": text(cell.margin) if has_margin else "",
        "alpha": text(effective_alpha(cell)) if has_margin else "",
        "temperature": text(cell.temperature),
        "batch": cell.batch,
        "lr": text(cell.lr),
        "weight_decay": "" if cell.weight_decay is None else text(cell.weight_decay),
    }
    return {k: v for k, v in columns.items() if k not in CHOSEN or k in named}


def aggregate(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Mean, sample standard deviation and raw values over the seeds, a row a configuration.

    Numbers are text with two decimals; the standard deviation of one seed is empty. In the place of
    a seed without a value stands why, ``failed`` or ``missing``, and there is no mean: one of the
    others would be of those that went well.
    """

    def shown(value: float) -> str:
        return "" if math.isnan(value) else f"{value:.2f}"

    def over_seeds(group: pd.DataFrame) -> pd.Series:
        values = group["accuracy"]
        return pd.Series(
            {
                "seeds": len(group),
                "mean": shown(values.mean(skipna=False)),
                "std": shown(values.std(ddof=1, skipna=False)),
                "values": " ".join(values.map(shown).where(group["hole"] == "", group["hole"])),
            }
        )

    measured = ["accuracy", "hole"]
    configuration = [name for name in accuracies if name not in ("seed", *measured)]
    groups = accuracies.groupby(configuration, sort=False)[measured]
    return groups.apply(over_seeds).reset_index()


def beside_published(table: pd.DataFrame, study: Study, file: Path) -> pd.DataFrame:
    """The table with what was published for its rows, and ours less that, in points.

    Two columns, ``published`` (values, each with its paper and protocol) and ``difference``; none
    where nothing was published for any row. A number for the best of several temperatures stands
    beside the best of ours and says so.

    Args:
        table: of ``aggregate``.
        study: the study.
        file: the published numbers.
    """
    named = axes(study)
    found: dict[tuple[Any, ...], pd.DataFrame] = {}
    for cell in cells(study).values():
        for protocol in study.evaluate.protocols:
            key = (*_configuration(cell, named).values(), protocol)
            if key not in found:  # once for all seeds
                found[key] = matches(study, cell, protocol, file)
    shown = [
        rows if best else rows[rows["temperature"] != TUNED]
        for rows, best in zip(found.values(), _best_temperature(table), strict=True)
    ]
    if all(rows.empty for rows in shown):
        return table
    published, difference = [], []
    for row, rows in zip(table.to_dict("records"), shown, strict=True):
        published.append("; ".join(_number(one) for one in rows.to_dict("records")))
        ours = float(row["mean"] or "nan")
        differences = [f"{ours - value:+.2f}" for value in rows["value"]] if row["mean"] else []
        difference.append(" ".join(differences))
    return table.assign(published=published, difference=difference)


def _number(one: dict[Hashable, Any]) -> str:
    tuned = ", best τ" * (one["temperature"] == TUNED)
    return f"{one['value']:g} {one['paper']} ({one['protocol']}{tuned})"


def _best_temperature(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether a row's mean is the highest of several that differ in τ alone, with none missing."""
    others = ("temperature", "seeds", "mean", "std", "values")
    same = [table[name] for name in table if name not in others]

    def best(means: "pd.Series[float]") -> "pd.Series[bool]":
        several = len(means) > 1 and bool(means.notna().all())
        return means.eq(means.max()) & several

    return pd.to_numeric(table["mean"]).groupby(same, sort=False).transform(best).astype(bool)


def metrics(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mean accuracies in percent by protocol and configuration, for ``dvc metrics``.

    A configuration is named by method, K and m, and by what else differs within the table.
    """
    symbols = {
        **{"negatives": "K=", "margin": "m=", "alpha": "α=", "temperature": "τ="},
        **{"batch": "N=", "lr": "lr=", "weight_decay": "decay="},
    }
    others = ("loss", "temperature", "batch", "lr", "weight_decay")
    names = ["method", "negatives", "margin"]
    names += [name for name in others if name in table and table[name].nunique() > 1]
    names += ["alpha"] * (table[table["margin"] == "eqco"]["alpha"].nunique() > 1)
    found: dict[str, dict[str, float]] = {}
    for row in table.to_dict("records"):
        label = " ".join(f"{symbols.get(c, '')}{row[c]}" for c in names if row[c] != "")
        if row["mean"]:
            found.setdefault(row["protocol"], {})[label] = float(row["mean"])
    return found


def notes(study: Study, summaries: list[dict[str, Any]]) -> list[str]:
    """Notes on the study's protocols, for a reader of the numbers.

    Args:
        study: the study.
        summaries: of ``read_study``.
    """
    known = [s["smallest_class"] for s in summaries if s.get("smallest_class")]
    smallest = min(known, default=None)
    return [
        f"`{protocol}`: k = {k} is more than the {smallest} training images of the smallest class: "
        "images of other classes always vote too."
        for protocol, k in study.evaluate.knn.votes.items()
        if smallest is not None and k > smallest
    ]


def markdown(table: pd.DataFrame, notes: list[str]) -> str:
    """The table for people: mean and deviation in one column, the papers' symbols as heads."""
    shown = table.rename(
        columns={"negatives": "K", "margin": "m", "alpha": "α", "temperature": "τ", "seeds": "n"}
    )
    std = shown.pop("std").map(lambda value: f" ± {value}" if value else "")
    shown["mean"] = shown["mean"] + std
    shown = shown.rename(columns={"mean": "mean ± std [%]", "values": "values [%]"})
    below = "".join(f"\n{note}\n" for note in notes)
    return shown.to_markdown(index=False, disable_numparse=True) + "\n" + below
