"""Accuracy against the number of negatives, as a figure."""

from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import pandas as pd

from eqco.files import write

mpl.use("agg")

from matplotlib import pyplot as plt

NAMES = {"0": "InfoNCE (m = 0)", "eqco": "EqCo (m = τ log α/K)", "inf": "DCL (m = ∞)"}
LINEAR = {"linear-lbfgs": "linear probe, L-BFGS", "linear": "linear probe, SGD"}
# Okabe and Ito's colours, told apart by the colour-blind, and a marker each
STYLES = [("#d55e00", "o"), ("#0072b2", "s"), ("#009e73", "^"), ("#cc79a7", "D"), ("#e69f00", "v")]


def negatives(accuracies: pd.DataFrame, title: str, stem: Path) -> None:
    """Draw linear accuracy against K, one line a margin, to ``stem``.svg and ``stem``.png.

    Points are means over the seeds, bars one sample standard deviation. Lines are told apart by
    method, α and τ too where the study has several.

    Args:
        accuracies: as from ``tables.read_study``.
        title: above the figure.
        stem: path without a suffix.
    """
    named = ["method", "temperature"]
    several = [name for name in named if accuracies[name].nunique() > 1]
    if accuracies.loc[accuracies["margin"] == "eqco", "alpha"].nunique() > 1:
        several.append("alpha")
    # equal inputs give equal bytes: no date, and no random ids
    with mpl.rc_context(
        {"svg.hashsalt": "eqco", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}
    ):
        figure, axes = plt.subplots(
            1, len(LINEAR), figsize=(8, 3.8), sharey=True, layout="constrained"
        )
        for axis, (protocol, name) in zip(axes, LINEAR.items(), strict=True):
            rows = accuracies[accuracies["protocol"] == protocol]
            lines = rows.groupby(["margin", *several], sort=False)
            for i, (key, line) in enumerate(lines):
                aside = 2 ** (0.06 * (i - (len(lines) - 1) / 2))  # bars stand side by side
                points = line.groupby("negatives")["accuracy"].agg(["mean", "std"])
                color, marker = STYLES[i % len(STYLES)]
                margin, *others = (str(part) for part in key)
                label = NAMES.get(margin, f"m = {margin}")
                details = [f"{n} {v}" for n, v in zip(several, others, strict=True)]
                axis.errorbar(
                    points.index * aside,
                    points["mean"],
                    yerr=points["std"].fillna(0),
                    label=", ".join([label, *details]),
                    color=color,
                    marker=marker,
                    markersize=4,
                    capsize=3,
                )
            axis.set_xscale("log", base=2)
            ticks = sorted(rows["negatives"].unique())
            axis.set_xticks(ticks, [str(k) for k in ticks])
            axis.minorticks_off()
            axis.set_xlabel("negatives a query, K")
            axis.set_title(name, fontsize=9)
        axes[0].set_ylabel("test accuracy [%]")
        lines_and_labels = axes[0].get_legend_handles_labels()
        figure.legend(*lines_and_labels, loc="outside lower center", ncols=3, fontsize=8)
        figure.suptitle(title)
        for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
            drawn = BytesIO()
            figure.savefig(drawn, format=suffix[1:], dpi=150, metadata=metadata)
            write(stem.with_suffix(suffix), drawn.getvalue())
        plt.close(figure)
