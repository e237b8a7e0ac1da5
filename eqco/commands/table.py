"""``eqco table``: gather a study's cells into its table, summary, metrics and figure."""

from pathlib import Path

from eqco.commands.compare import write_own
from eqco.report import claims, figures, noise, selection, summary, tables
from eqco.runtime.files import write
from eqco.store.cells import write_json
from eqco.store.provenance import gather
from eqco.store.selection import choose, confirmed
from eqco.study.grid import Grid


def write_table(grid: Grid, results: Path, published: Path, latex: Path | None = None) -> str:
    """Write table.csv, table.md, summary.md, metrics.json, negatives.* and provenance.json.

    With ``comparisons`` in the study also what ``compare.write_own`` writes.

    Args:
        grid: the study's grid.
        results: the study's folder, which holds ``cells/``; the files are written to it.
        published: CSV file of published numbers.
        latex: a further file, for the blocks of summary.md as LaTeX tables.

    Returns:
        The text of summary.md.

    Raises:
        InputError: if a cell's files are missing or belong to another run.
    """
    study, choices, every = grid.study, [], grid
    if study.select:
        choices = choose(grid, results)
        grid = confirmed(grid, choices)
    accuracies, summaries = tables.read_study(grid, results)
    table = tables.beside_published(tables.aggregate(accuracies), grid, published)
    write(results / "table.csv", table.to_csv(index=False))
    notes = [*tables.notes(study, summaries), *noise.notes(accuracies)]
    if study.select:
        notes = [*selection.notes(study.select, choices), *notes]
    if study.comparisons:
        notes.append(f"{claims.METHOD} (docs/statistics.md): `comparisons.md`.")
    below = tables.geometry(accuracies, summaries)
    if len(below):
        notes.append("Geometry of the features (docs/protocols.md), mean ± deviation over seeds:")
        notes.append(below.to_markdown(index=False, disable_numparse=True))
    write(results / "table.md", tables.markdown(table, notes))
    text = "\n".join([summary.render(table), *(f"{note}\n" for note in notes)])
    write(results / "summary.md", text)
    if latex:
        write(latex, summary.latex(table))
    write_json(results / "metrics.json", tables.metrics(table))
    figures.save(figures.negatives(accuracies, study.study), results / "negatives")
    statistics = {"statistics": claims.METHOD} if study.comparisons else {}
    write_json(results / "provenance.json", {**gather(study, summaries), **statistics})
    if study.comparisons:
        write_own(every, results)
    return text
