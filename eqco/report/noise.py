"""The noise floor: configurations that are one training under two names.

Where two configurations have the same loss in every epoch, as EqCo at K = α and InfoNCE, their
accuracies differ by what seeds and rounding alone do.
"""

from typing import Any

import pandas as pd

from eqco.report.columns import configuration

DIGITS = 6  # of a loss; rounding differs between machines beyond


def losses(summary: dict[str, Any]) -> str | None:
    """The losses of a training by epoch, as text that is equal where they are; None in a hole."""
    history = summary.get("history")
    if summary.get("failed") or not history:
        return None
    return " ".join(f"{epoch['loss']:.{DIGITS}g}" for epoch in history)


def same(accuracies: pd.DataFrame) -> list[list[str]]:
    """Groups of configurations that have the same losses on the same seeds, by name.

    Args:
        accuracies: of ``tables.read_study``.
    """
    rows = accuracies[accuracies["protocol"] == accuracies["protocol"].iloc[0]]
    axes = configuration(rows)
    varying = [axis for axis in axes if rows[axis].nunique() > 1]
    groups: dict[tuple[Any, ...], list[str]] = {}
    for key, arm in rows.groupby(axes, sort=False):
        if arm["losses"].isna().any():
            continue
        values = dict(zip(axes, key, strict=True))
        name = " ".join(f"{axis}={values[axis]}" for axis in varying)
        seeds = tuple(sorted(zip(arm["seed"], arm["losses"], strict=True)))
        groups.setdefault(seeds, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def notes(accuracies: pd.DataFrame) -> list[str]:
    """A line for each group, for a reader of the numbers."""
    return [
        f"{' and '.join(f'`{name}`' for name in names)} have the same losses in every epoch: their "
        "accuracies differ by seeds and rounding alone."
        for names in same(accuracies)
    ]
