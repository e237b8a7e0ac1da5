"""The lines of a study's figures and charts: their names, colours, and where their points stand."""

from itertools import pairwise

import pandas as pd

NAMES = {"0": "InfoNCE (m = 0)", "eqco": "EqCo (m = τ log α/K)", "inf": "DCL (m = ∞)"}
# Okabe and Ito's colours, told apart by the colour-blind, and grey; a marker each
COLORS = (
    *("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"),
    *("#999999", "#f0e442"),
)
MARKERS = "os^Dv<>PX*"  # one more than colours: ten lines and more stay apart


def lines_of(accuracies: pd.DataFrame) -> list[str]:
    """The name of the line that each row belongs to."""
    # What goes with K, as the batch may, does not tell lines apart.
    at_a_point = accuracies.groupby(["method", "negatives"])
    varying = [
        name
        for name in ("temperature", "batch", "lr", "weight_decay")
        if name in accuracies and at_a_point[name].nunique().max() > 1
    ]
    eqco = accuracies[accuracies["margin"] == "eqco"]
    several_alphas = eqco.groupby("method")["alpha"].nunique().max() > 1
    names = []
    for row in accuracies.to_dict("records"):
        margin = row["margin"]
        name = NAMES.get(margin, f"m = {margin}") if margin else row["loss"]
        details = [f"{key.replace('_', ' ')} {row[key]}" for key in varying]
        if several_alphas and margin == "eqco":
            details.insert(0, f"α {row['alpha']}")
        names.append(", ".join([name, *details]))
    return names


def ticks_of(rows: pd.DataFrame) -> dict[int, str]:
    """Where K is written; one too near to another, as 256 to 255, stands beside it."""
    ticks: dict[int, str] = {}
    for k in sorted(rows["negatives"].unique()):
        if ticks and k <= 1.2 * (last := max(ticks)):
            ticks[last] += f", {k}"
        else:
            ticks[k] = str(k)
    return ticks


def aside_of(lines: list[str], ticks: list[int]) -> dict[str, float]:
    """What each line's K are multiplied by, so that bars stand side by side."""
    apart = min((b / a for a, b in pairwise(ticks)), default=4) ** 0.03
    return {line: apart ** (i - (len(lines) - 1) / 2) for i, line in enumerate(lines)}
