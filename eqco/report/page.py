"""The report of a study: one HTML page with charts, table, holes and provenance; no network."""

import math
import os
from base64 import b64encode
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import altair
import pandas as pd
import vl_convert
import yaml

from eqco.errors import InputError
from eqco.report import charts, claims, figures, forest, noise, selection, tables
from eqco.report.columns import column, configuration, shown
from eqco.report.lines import lines_of, on_test
from eqco.report.templates import render as render_template
from eqco.store import history, provenance
from eqco.store.cells import state_folder
from eqco.store.selection import Choice, choose, confirmed
from eqco.study.grid import Grid
from eqco.study.study import Study

EPOCHS = 100_000  # most epochs in a page, over all cells: about 6 MB
FEWEST = 20  # epochs per cell


def render(grid: Grid, results: Path, source: Path, published: Path) -> str:
    """Render the page; equal files give equal bytes.

    A cell that failed or is missing is a hole.

    Args:
        grid: the study's grid.
        results: the study's folder, ``results/<study>``, which holds ``cells/``.
        source: the study file.
        published: the published numbers.
    """
    study, choices = grid.study, []
    if study.select:
        choices = choose(grid, results, unfinished=True)
        grid = confirmed(grid, choices)
    accuracies, summaries = tables.read_study(grid, results, unfinished=True)
    summaries = _with_running(grid, results, summaries)
    table = tables.beside_published(tables.aggregate(accuracies), grid, published)
    named = configuration(table)
    deviation = table["std"].map(lambda std: f" ± {std}" if std else "")
    table = table.assign(
        accuracy=(table["mean"] + deviation).where(table["mean"] != "", "hole"),
        line=lines_of(table),
        id=table.groupby(named, sort=False).ngroup(),
    )
    rows = table.to_dict("records")
    for row in rows:
        if "published" in row:
            values = filter(None, row["published"].split("; "))
            row["published"] = list(zip_longest(row["difference"].split(), values, fillvalue=""))
    done = [summary for summary in summaries if "missing" not in summary]
    made_by = provenance.gather(study, done) if done else None
    charted = on_test(table)
    limit = max(FEWEST, EPOCHS // len(summaries))
    methods = list(table["method"].unique())
    epochs = sorted({study.of(one.cell).pretrain.epochs for one in grid.cells.values()})
    curves = charts.CURVES | (charts.KNN if study.evaluate.every else {})
    return render_template(
        "page.html.jinja",
        study=study,
        cells=len(summaries),
        holes=[
            (path, why, summary[why].removeprefix(f"{results / 'cells' / path}/"))
            for path, summary in zip(grid.cells, summaries, strict=True)
            for why in tables.HOLES
            if summary.get(why)
        ],
        methods=methods,
        epochs=epochs,
        switches=charts.switches(charted),
        selected=selection.notes(study.select, choices) if study.select else [],
        column=column,
        columns=shown(table),
        curves=curves,
        charts={
            **{f"against-{name}": charts.against_k(charted, name) for name in methods},
            **{f"curve-{name}": charts.curve(name, epochs[-1]) for name in curves},
            **_selection(study, choices),
        },
        compared=_compared(study, accuracies),
        histories=_histories(accuracies, named, summaries, list(curves), limit),
        thinned=limit if epochs[-1] > limit else None,
        table=rows,
        notes=[*tables.notes(study, summaries), *noise.notes(accuracies)],
        commit=_commit(made_by["made_by"]) if made_by else None,
        source=os.path.relpath(source.resolve(), results.resolve().parents[1]),
        made_by=made_by,
        parameters=yaml.safe_dump(
            study.model_dump(mode="json", exclude_none=True),
            default_flow_style=None,  # a list in a line
            sort_keys=False,
            allow_unicode=True,
        ),
        vega=vega(),
    )


def _with_running(
    grid: Grid, results: Path, summaries: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The summaries; a missing cell that has trained some epochs has their history."""
    more = []
    for (path, cell), summary in zip(grid.cells.items(), summaries, strict=True):
        entries: history.Entries = []
        if "missing" in summary:
            entries = history.read(state_folder(results, path) / cell.hash / history.HISTORY)
        if entries:
            epochs = grid.study.of(cell.cell).pretrain.epochs
            summary = {"missing": f"{len(entries)} of {epochs} epochs trained", "history": entries}
        more.append(summary)
    return more


@cache
def vega() -> str:
    """The JavaScript that draws the charts, which takes a second to bundle."""
    version = altair.SCHEMA_VERSION.rpartition(".")[0]
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed", version)


def _selection(study: Study, choices: list[Choice]) -> dict[str, Any]:
    """The chart of what was selected, if anything was."""
    table = selection.scores(choices)
    if study.select is None or table.empty:
        return {}
    return {"selection": selection.chart(table, study.select)}


def _compared(study: Study, accuracies: pd.DataFrame) -> dict[str, Any] | None:
    """The claims and the figure of the study's comparisons, or why there are none yet."""
    if not study.comparisons:
        return None
    try:
        found = claims.comparisons(study, accuracies)
        decided = claims.claims(study, accuracies) if study.claims else pd.DataFrame()
    except InputError as error:
        return {"missing": str(error)}
    figure = figures.svg(forest.draw(study.comparisons, found, study.study))
    image = b64encode(figure.encode()).decode()
    return {"claims": claims.shown(decided).to_dict("records"), "figure": image, "missing": ""}


def _commit(makers: list[dict[str, Any]]) -> str | None:
    """The commit that made all cells; None if there were several."""
    revisions = {made["revision"] for made in makers}
    name = revisions.pop() if len(revisions) == 1 else ""
    return name if name and not name.endswith("-dirty") else None


def _histories(
    accuracies: pd.DataFrame,
    named: list[str],
    summaries: list[dict[str, Any]],
    curves: list[str],
    limit: int,
) -> dict[int, list[dict[str, Any]]]:
    """The curves of each configuration's seeds, by its number in the table's order."""
    first = accuracies["protocol"].iloc[0]
    one_a_cell = accuracies[accuracies["protocol"] == first]
    ids = one_a_cell.groupby(named, sort=False).ngroup()
    histories: dict[int, list[dict[str, Any]]] = {}
    for i, seed, summary in zip(ids, one_a_cell["seed"], summaries, strict=True):
        epochs = _thinned(summary.get("history", []), limit)
        columns = {
            name: [_short(epoch.get(name)) for epoch in epochs] for name in ("epoch", *curves)
        }
        histories.setdefault(i, []).append({"seed": seed, **columns})
    return histories


def _thinned(history: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """``limit`` epochs, evenly spaced, the first and the last among them, and those with a kNN."""
    if len(history) <= limit:
        return history
    chosen = {round(i * (len(history) - 1) / (limit - 1)) for i in range(limit)}
    return [entry for i, entry in enumerate(history) if i in chosen or "knn" in entry]


def _short(value: float | None) -> float | None:
    """Round to four digits, more than a chart shows; None for infinity, which JSON has not."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")
