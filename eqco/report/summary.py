"""The mean accuracies at a glance: a block per protocol, a row per margin, a column per K."""

from collections.abc import Iterator

import pandas as pd

from eqco.report.lines import lines_of
from eqco.study.protocols import VALIDATION_SUFFIX

# pdfTeX has none of these in text
SYMBOLS = str.maketrans({"±": r"$\pm$", "α": r"$\alpha$", "τ": r"$\tau$", "∞": r"$\infty$"})


def render(table: pd.DataFrame) -> str:
    """The blocks in Markdown; arguments as for ``blocks``."""
    texts = (
        f"{head}\n\n{block.to_markdown(disable_numparse=True)}\n" for head, block in blocks(table)
    )
    return "\n".join(texts)


def latex(table: pd.DataFrame) -> str:
    """The blocks as LaTeX tables, which need the package booktabs; arguments as for ``blocks``."""
    texts = []
    for head, block in blocks(table):
        style = block.rename_axis(index=None, columns=None).style.format(escape="latex")
        style = style.format_index(escape="latex").format_index(escape="latex", axis="columns")
        caption = head.replace("%", r"\%").replace("_", r"\_")
        written = style.to_latex(hrules=True, caption=caption, position_float="centering")
        texts.append(written.translate(SYMBOLS))
    return "\n".join(texts)


def blocks(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Mean ± sample standard deviation over seeds: for each protocol a caption and its table.

    A row is a line of the figure: a margin or loss, with any other axis that separates lines. A
    configuration with a failed or missing seed is a hole.

    Args:
        table: of ``tables.aggregate``.
    """
    deviation = table["std"].map(lambda std: f" ± {std}" if std else "")
    several = table["method"].nunique() > 1
    line = pd.Series(lines_of(table), index=table.index)
    rows = table.assign(
        accuracy=(table["mean"] + deviation).where(table["mean"] != "", "hole"),
        line=table["method"] + ", " + line if several else line,
        K=[f"K = {k}" for k in table["negatives"]],
    )
    for protocol, block in rows.groupby("protocol", sort=False):
        ordered = block.sort_values("negatives", kind="stable")
        pivot = block.pivot_table("accuracy", "line", "K", "first", sort=False).fillna("")
        pivot = pivot[list(ordered["K"].unique())].rename_axis("", axis="index")
        n = " to ".join(str(n) for n in sorted({block["seeds"].min(), block["seeds"].max()}))
        on = "validation" if str(protocol).endswith(VALIDATION_SUFFIX) else "test"
        head = f"{protocol}: {on} accuracy [%], mean ± standard deviation, n = {n} seeds"
        yield head, pivot
