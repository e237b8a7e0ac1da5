"""The mean accuracies at a glance: a block per protocol, a row per margin, a column per K."""

import pandas as pd

from eqco.report.lines import lines_of
from eqco.study.protocols import VALIDATION_SUFFIX


def render(table: pd.DataFrame) -> str:
    """Mean ± sample standard deviation over seeds, in Markdown.

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
    blocks = []
    for protocol, block in rows.groupby("protocol", sort=False):
        ordered = block.sort_values("negatives", kind="stable")
        pivot = block.pivot_table("accuracy", "line", "K", "first", sort=False).fillna("")
        pivot = pivot[list(ordered["K"].unique())].rename_axis("", axis="index")
        n = " to ".join(str(n) for n in sorted({block["seeds"].min(), block["seeds"].max()}))
        on = "validation" if str(protocol).endswith(VALIDATION_SUFFIX) else "test"
        head = f"{protocol}: {on} accuracy [%], mean ± standard deviation, n = {n} seeds"
        blocks.append(f"{head}\n\n{pivot.to_markdown(disable_numparse=True)}\n")
    return "\n".join(blocks)
