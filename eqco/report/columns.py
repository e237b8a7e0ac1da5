"""The columns of a results table: the papers' symbol of each, and its meaning in words."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Column:
    """A column.

    Args:
        symbol: the papers' symbol or a short word: the head in a report, and the name in metrics.
        meaning: one line for a reader of a report; empty if the symbol says it.
        choice: the label of the report's switch between the column's values.
    """

    symbol: str
    meaning: str = ""
    choice: str = ""


COLUMNS = {
    "method": Column("method"),
    "loss": Column("loss"),
    "negatives": Column("K", "negatives per anchor"),
    "margin": Column("m", "margin: 0 is InfoNCE, inf is DCL"),
    "alpha": Column("α", "effective number of negatives, K exp(m/τ)", "EqCo's α"),
    "temperature": Column("τ", "temperature", "temperature τ"),
    "batch": Column("N", "images per step", "batch N"),
    "optimizer": Column("optimiser", "", "optimiser"),
    "lr": Column("lr", "learning rate", "learning rate"),
    "weight_decay": Column("decay", "weight decay", "weight decay"),
    "protocol": Column("protocol", "evaluation of the frozen encoder", "protocol"),
    "seeds": Column("n", "seeds"),
    "accuracy": Column(
        "mean ± std [%]", "test accuracy: mean and one sample standard deviation over seeds"
    ),
    "values": Column("values [%]", "one per seed"),
    "published": Column(
        "difference, published [%]",
        "ours minus each published value, in points; the value, its paper and protocol",
    ),
}

# begins the column of the axis whose value is selected for each arm: a result, no axis any more
SELECTED = "selected_"
# columns that name a line, or place a point on it
LINE = ("method", "loss", "negatives", "margin", "alpha")


def configuration(table: pd.DataFrame) -> list[str]:
    """The columns that say what a row is of: those before the protocol."""
    return list(table.columns[: table.columns.get_loc("protocol")])


def settings(table: pd.DataFrame) -> list[str]:
    """The columns of a configuration that may tell two lines of one loss apart: τ and axes.

    A selected value does not: it goes with the line and the point.
    """
    names = [name for name in configuration(table) if name not in LINE]
    return [name for name in names if not name.startswith(SELECTED)]


def column(name: str) -> Column:
    """A column of a table; a key of the recipe that is an axis goes by its own name."""
    if name.startswith(SELECTED):
        symbol = column(name.removeprefix(SELECTED)).symbol
        return Column(f"{symbol}, selected", "by accuracy on validation images, by other seeds")
    words = name.replace("_", " ")
    return COLUMNS.get(name, Column(words, "", words))


def shown(table: pd.DataFrame) -> dict[str, Column]:
    """The columns of a report's table: the configuration, and what was measured."""
    rest = list(COLUMNS)[list(COLUMNS).index("protocol") :]
    names = [*configuration(table), *(name for name in rest if name in table)]
    return {name: column(name) for name in names}
