"""The lines of a study's figures and charts: their names, colours, shapes and places."""

from itertools import pairwise

import pandas as pd

from eqco.report.columns import settings
from eqco.study.protocols import VALIDATION_SUFFIX

NAMES = {"0": "InfoNCE (m = 0)", "eqco": "EqCo (m = τ log α/K)", "inf": "DCL (m = ∞)"}
# Okabe and Ito's colours, which the colour-blind can tell apart, and grey
COLORS = (
    *("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"),
    *("#999999", "#f0e442"),
)
SHAPES = (  # one more than colours, so that ten lines and more differ
    *("circle", "square", "triangle-up", "diamond", "triangle-down"),
    *("triangle-left", "triangle-right", "cross"),
    "M-1,-.6L-.6,-1L0,-.4L.6,-1L1,-.6L.4,0L1,.6L.6,1L0,.4L-.6,1L-1,.6L-.4,0Z",  # X
    "M0,-1L.25,-.3H1L.4,.1L.6,.8L0,.4L-.6,.8L-.4,.1L-1,-.3H-.25Z",  # a star
)


def on_test(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose accuracy is one on the test images."""
    return rows[~rows["protocol"].str.endswith(VALIDATION_SUFFIX)]


def lines_of(accuracies: pd.DataFrame) -> list[str]:
    """The name of each row's line: its margin or loss, and the other axes that separate lines."""
    # an axis with one value per K, as the batch may be, does not separate lines
    at_a_point = accuracies.groupby(["method", "negatives"])
    varying = [name for name in settings(accuracies) if at_a_point[name].nunique().max() > 1]
    eqco = accuracies[accuracies["margin"] == "eqco"]
    several_alphas = eqco.groupby("method")["alpha"].nunique().max() > 1
    names = []
    for row in accuracies.to_dict("records"):
        margin = row["margin"]
        name = NAMES.get(margin, f"m = {margin}") if margin else row["loss"]
        if margin and row.get("loss", "info-nce") != "info-nce":  # a control with its weights
            name = f"{row['loss']}, {name}"
        details = [f"{key.replace('_', ' ')} {row[key]}" for key in varying if row[key] != ""]
        if several_alphas and margin == "eqco":
            details.insert(0, f"α {row['alpha']}")
        names.append(", ".join([name, *details]))
    return names


def ticks_of(rows: pd.DataFrame) -> dict[int, str]:
    """Ticks of the K axis. Values within 20 % of each other share one, for example "255, 256"."""
    ticks: dict[int, str] = {}
    for k in sorted(rows["negatives"].unique()):
        if ticks and k <= 1.2 * (last := max(ticks)):
            ticks[last] += f", {k}"
        else:
            ticks[k] = str(k)
    return ticks


def shift_of(lines: list[str], ticks: list[int]) -> dict[str, float]:
    """A factor that shifts each line along the log axis, so that error bars do not overlap."""
    apart = min((b / a for a, b in pairwise(ticks)), default=4) ** 0.03
    return {line: apart ** (i - (len(lines) - 1) / 2) for i, line in enumerate(lines)}
