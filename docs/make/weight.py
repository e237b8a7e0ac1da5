"""Draws docs/figures/weight.svg: the weight W of an anchor's gradient against K, for three losses.

The similarities are drawn, not measured: positives around 0.7, negatives as of unit vectors in 128
dimensions that know nothing of each other.
"""

import math
from pathlib import Path

import pandas as pd
import torch

from eqco.losses.family import eqco_margin, weight
from eqco.report import figures
from eqco.report.lines import NAMES, ticks_of

ALPHA, TEMPERATURE = 256, 0.2  # as of the studies
KS = [2**i for i in range(9)]  # 1 to α
ANCHORS = 200
STEM = Path(__file__).parents[1] / "figures" / "weight"


def draw(stem: Path = STEM) -> None:
    """Write ``stem``.svg and ``stem``.png: W's median over anchors, bars from its 10th to 90th."""
    generator = torch.Generator().manual_seed(0)
    positive = 0.7 + 0.1 * torch.randn(ANCHORS, generator=generator)  # (A,)
    negatives = torch.randn(ANCHORS, KS[-1], generator=generator) / math.sqrt(128)  # (A, K)
    rows = []
    for k in KS:
        margins = {"0": 0.0, "eqco": eqco_margin(k, ALPHA, TEMPERATURE), "inf": math.inf}
        for name, margin in margins.items():
            w = weight(positive, negatives[:, :k], temperature=TEMPERATURE, margin=margin)
            low, middle, high = w.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
            rows.append(
                {"negatives": k, "line": NAMES[name], "y": middle, "low": low, "high": high}
            )
    points = pd.DataFrame(rows)
    panel = figures.against_k(
        points,
        lines=[NAMES[name] for name in ("0", "eqco", "inf")],
        ticks=ticks_of(points),
        title="weight W of an anchor",
        span=[0, 1],
    )
    title = (
        f"Few negatives make InfoNCE's weights small and uneven (α = {ALPHA}, τ = {TEMPERATURE})"
    )
    figures.save(figures.look(panel.properties(width=480, height=220), title), stem)


if __name__ == "__main__":
    draw()
