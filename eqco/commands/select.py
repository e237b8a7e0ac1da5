"""``eqco select``: the value of each arm of a study, by its deciding cells."""

from pathlib import Path

from eqco.errors import InputError
from eqco.report import figures, selection
from eqco.runtime.files import write
from eqco.store.selection import choose
from eqco.study.grid import Grid


def write_selection(grid: Grid, results: Path) -> str:
    """Write selection.csv, selection.svg and selection.png.

    Args:
        grid: the study's grid.
        results: the study's folder, which holds the deciding cells or their archive.

    Returns:
        The selected values, for people.

    Raises:
        InputError: the study selects nothing, deciding cells are missing, or an arm has failed
            seeds at every value.
    """
    study = grid.study
    if not study.select:
        raise InputError(f"{study.study}: select: is missing: the study selects nothing")
    choices = choose(grid, results)
    table = selection.scores(choices)
    write(results / "selection.csv", table.to_csv(index=False, float_format="%.4f"))
    drawn = selection.figure(table, study.select, study.study)
    figures.save(drawn, results / "selection")
    shown = table[table["selected"]].rename(columns={"value": study.select.axis})
    lines = shown.drop(columns="selected").to_markdown(index=False, floatfmt=".2f")
    return "\n\n".join([*selection.notes(study.select, choices), lines]) + "\n"
