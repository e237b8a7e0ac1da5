"""Comparisons of configurations with a reference that differs from them in the named axes alone."""

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from eqco.errors import InputError
from eqco.report.columns import SELECTED
from eqco.report.statistics import Estimate, holm, over_images, paired, sign_flip, welch
from eqco.store.images import unpack
from eqco.study.claims import Comparison

VALUES = ("seed", "accuracy", "hole", "protocol", "correct", "losses")
VERDICT = {1: "above", -1: "below"}
LEVEL = 0.05


def compare(accuracies: pd.DataFrame, comparison: Comparison) -> pd.DataFrame:
    """Compare every configuration with the one that has the named values and is else the same.

    Args:
        accuracies: a row per cell and protocol, of ``tables.read_study``.
        comparison: what to compare.

    Returns:
        A row per comparison and protocol: the axes; ``protocol``; ``test``, ``paired`` or, of arms
        with other seeds than the reference's, ``Welch``; ``n``, pairs, or the seeds of both arms as
        ``4+5``; ``difference``, ``low``, ``high`` (95 % t interval), ``sd`` of the pairs'
        differences, ``above``, pairs above 0; ``p``, ``p_flip``, ``p_adjusted``; ``detectable``,
        the difference found with power 0.8; ``correlation`` of the arms over seeds; with an
        equivalence bound ``p_equivalence``; where the images that are right were kept
        ``low_images``, ``high_images``, the interval over seeds and images; ``verdict``. Accuracies
        are in percent, differences in points.

    Raises:
        InputError: an axis, value or protocol is unknown, nothing matches, or all have one seed.
    """
    axes = _axes(accuracies)
    _check(accuracies, axes, comparison)
    if comparison.protocol:
        accuracies = accuracies[accuracies["protocol"] == comparison.protocol]
    rows = []
    for protocol, of_protocol in accuracies.groupby("protocol", sort=False):
        kept, arms = _arms(of_protocol, comparison)
        for key, reference in _references(kept, arms, comparison.against).items():
            row = {**dict(zip(kept, key, strict=True)), "protocol": protocol}
            if all(str(row.get(axis, "")) in some for axis, some in comparison.where.items()):
                arm, other, bound = arms[key], arms[reference], comparison.equivalence
                numbers = _difference(arm.accuracy, other.accuracy, bound)
                numbers |= _over_images(arm, other)
                if arm.losses and arm.losses == other.losses:
                    numbers["same_losses"] = True
                rows.append({**row, **numbers})
    named = ", ".join(f"{axis}={value}" for axis, value in comparison.against.items())
    if not rows:
        raise InputError(f"against: {named}: no configuration differs from one in these alone")
    table = pd.DataFrame(rows)
    if "difference" not in table:
        raise InputError(f"against: {named}: one seed: a comparison needs two or more")
    return _with_verdicts(table, comparison)


Key = tuple[Any, ...]


def _axes(accuracies: pd.DataFrame) -> list[str]:
    """The columns in which configurations differ; an arm's selected value is not one of them."""
    names = [str(name) for name in accuracies if name not in VALUES]
    return [name for name in names if not name.startswith(SELECTED)]


@dataclass(frozen=True)
class Arm:
    """A configuration: its accuracy by seed, NaN in a hole, and the values that it is a mean of.

    ``correct`` has by seed the share of what is pooled that gets each test image right (M,), if all
    seeds have kept that. ``losses`` are those of its trainings, with their seeds.
    """

    accuracy: dict[int, float]
    pooled: frozenset[Key]
    correct: dict[int, np.ndarray]
    losses: frozenset[Key]


def _arms(rows: pd.DataFrame, comparison: Comparison) -> tuple[list[str], dict[Key, Arm]]:
    """The axes that are not pooled, and the arms by their values.

    A seed of a pooled arm counts if all that is pooled has it.
    """
    # another margin's α is derived from its K
    rows = rows.assign(alpha=rows["alpha"].where(rows["margin"] == "eqco", ""))
    axes = [name for name in _axes(rows) if name != "alpha"]
    if "alpha" in comparison.against or rows.groupby(axes)["alpha"].nunique().max() > 1:
        axes.append("alpha")  # else it goes with K, the margin or the method
    axes = [name for name in axes if name not in comparison.pool]
    arms: dict[Key, Arm] = {}
    for key, arm in rows.groupby(axes, sort=False):
        by_seed: dict[int, list[float]] = {}
        for seed, accuracy in zip(arm["seed"], arm["accuracy"], strict=True):
            by_seed.setdefault(int(seed), []).append(float(accuracy))
        most = max(map(len, by_seed.values()))
        pooled = frozenset(arm[list(comparison.pool)].itertuples(index=False, name=None))
        by_number = {seed: fmean(some) for seed, some in by_seed.items() if len(some) == most}
        trained = arm.get("losses", pd.Series(None, arm.index))
        losses = frozenset(zip(arm["seed"], trained, strict=True)) if trained.notna().all() else ()
        arms[tuple(key)] = Arm(by_number, pooled, _correct(arm, by_number), frozenset(losses))
    return axes, arms


def _correct(arm: pd.DataFrame, accuracy: dict[int, float]) -> dict[int, np.ndarray]:
    """The images that an arm gets right, by seed; empty if some seed does not tell."""
    if "correct" not in arm or arm["correct"].isna().any():
        return {}
    by_seed = arm.groupby("seed", sort=False)["correct"]
    return {
        int(str(seed)): np.mean([unpack(text) for text in texts], axis=0)
        for seed, texts in by_seed
        if seed in accuracy
    }


def _references(axes: list[str], arms: dict[Key, Arm], against: dict[str, str]) -> dict[Key, Key]:
    """The reference of each arm that has one, by their values."""
    place = {axis: i for i, axis in enumerate(axes)}
    others = [i for axis, i in place.items() if axis not in (*against, "alpha")]
    named = {place[axis]: value for axis, value in against.items()}

    def rest(key: Key) -> Key:
        return tuple(key[i] for i in others)

    candidates: dict[Key, list[Key]] = {}
    for key in arms:
        if all(str(key[i]) == value for i, value in named.items()):
            candidates.setdefault(rest(key), []).append(key)
    found = {}
    for key, arm in arms.items():
        fitting = candidates.get(rest(key), [])
        if "alpha" in place and "alpha" not in against:
            i = place["alpha"]  # two of EqCo's margins have the same; another margin has none
            fitting = [one for one in fitting if "" in (one[i], key[i]) or one[i] == key[i]]
        if len(fitting) > 1:
            values = ", ".join(one[place["alpha"]] for one in fitting)
            raise InputError(f"against: several fit: name alpha too, one of {values}")
        if fitting and fitting[0] != key and arms[fitting[0]].pooled == arm.pooled:
            found[key] = fitting[0]
    return found


def _check(accuracies: pd.DataFrame, axes: list[str], comparison: Comparison) -> None:
    for option, names in (("against", list(comparison.against)), ("pool", list(comparison.pool))):
        for name in names:
            if name not in axes:
                raise InputError(f"{option}: {name}: not an axis; allowed: {', '.join(axes)}")
    if twice := set(comparison.against) & set(comparison.pool):
        raise InputError(f"pool: {twice.pop()}: against names it: compare it, or pool it")
    for axis, value in comparison.against.items():
        values = list(dict.fromkeys(map(str, accuracies[axis])))
        if value not in values:
            allowed = ", ".join(filter(None, values))
            raise InputError(f"against: {axis}={value}: no such value; allowed: {allowed}")
    protocols = list(accuracies["protocol"].unique())
    if comparison.protocol not in (None, *protocols):
        allowed = ", ".join(protocols)
        raise InputError(f"protocol: {comparison.protocol}: unknown; allowed: {allowed}")


def _difference(
    arm: dict[int, float], reference: dict[int, float], bound: float | None
) -> dict[str, Any]:
    """The numbers of one comparison; without a difference if it has fewer than two pairs."""
    if arm.keys() == reference.keys():
        both = np.array([[arm[seed], reference[seed]] for seed in arm])  # (n, 2)
        both = both[~np.isnan(both).any(axis=1)]
        d = both[:, 0] - both[:, 1]
        row: dict[str, Any] = {"test": "paired", "n": str(len(d))}
        if len(d) < 2:
            return row
        row |= {"sd": d.std(ddof=1), "above": int((d > 0).sum()), "p_flip": sign_flip(d)}
        if both.std(axis=0).all() and len(d) > 2:
            row["correlation"] = float(np.corrcoef(both.T)[0, 1])
        return {**row, **_numbers(paired(d), bound)}
    first, second = (np.array([x for x in one.values() if x == x]) for one in (arm, reference))
    row = {"test": "Welch", "n": f"{len(first)}+{len(second)}"}
    if min(len(first), len(second)) < 2:
        return row
    return {**row, **_numbers(welch(first, second), bound)}


def _over_images(arm: Arm, reference: Arm) -> dict[str, float]:
    """The interval over seeds and test images, if pairs of seeds have kept what they get right."""
    if len(arm.correct) < 2 or arm.correct.keys() != reference.correct.keys():
        return {}
    d = np.stack([arm.correct[seed] - reference.correct[seed] for seed in arm.correct])  # (n, M)
    low, high = over_images(100 * d).interval()
    return {"low_images": low, "high_images": high}


def _numbers(estimate: Estimate, bound: float | None) -> dict[str, float]:
    low, high = estimate.interval()
    numbers = {"difference": estimate.difference, "low": low, "high": high, "p": estimate.p()}
    numbers["detectable"] = estimate.detectable()
    if bound is not None:
        numbers["p_equivalence"] = estimate.p_equivalence(bound)
    return numbers


def _with_verdicts(table: pd.DataFrame, comparison: Comparison) -> pd.DataFrame:
    """Add ``p_adjusted`` and ``verdict``; put the columns in order."""
    adjusted = ["p", *(["p_equivalence"] if comparison.equivalence is not None else [])]
    table["p_adjusted"] = table["p"]
    if comparison.correct == "holm":
        for name, target in zip(adjusted, ("p_adjusted", "p_equivalence"), strict=False):
            for _, rows in table.dropna(subset=[name]).groupby("protocol", sort=False):
                table.loc[rows.index, target] = holm(rows[name].tolist())
    table["verdict"] = [_verdict(row) for _, row in table.iterrows()]
    numbers = ["test", "n", "difference", "low", "high", "sd", "above", "p", "p_flip", "p_adjusted"]
    images = [name for name in ("low_images", "high_images") if name in table]
    same = ["same_losses"] * ("same_losses" in table)
    numbers += [*adjusted[1:], "detectable", *images, "correlation", *same, "verdict"]
    axes = [name for name in table if name not in numbers]
    return table.reindex(columns=[*axes, *numbers])


def _verdict(row: "pd.Series[Any]") -> str:
    """``equivalent`` if that was tested and found; else ``above``, ``below`` or ``undecided``."""
    if row.get("p_equivalence", math.nan) < LEVEL:
        return "equivalent"
    if row["p_adjusted"] < LEVEL:
        return VERDICT[1 if row["difference"] > 0 else -1]
    return "undecided"


def markdown(table: pd.DataFrame, comparison: Comparison) -> str:
    """The table of ``compare`` for a reader: what differs between its rows, and the numbers."""
    axes = list(table)[: list(table).index("test")]
    varying = [a for a in axes if table[a].nunique() > 1 or a in comparison.against]
    shown = table[varying].astype(str)
    shown["n"] = table["n"] + table["test"].map({"paired": "", "Welch": ", unpaired"})
    shown["difference [95 %]"] = interval_text(table)
    adjusted = "p, Holm" if comparison.correct == "holm" else ""
    columns = {"p": "p", "p_adjusted": adjusted, "p_flip": "p, flips"}
    if comparison.equivalence is not None:
        columns["p_equivalence"] = f"p, beyond ± {comparison.equivalence:g}"
    for name, head in columns.items():
        if head:
            shown[head] = table[name].map(p_text)
    if "low_images" in table:
        shown["over images too"] = [
            "" if math.isnan(low) else f"[{low:+.2f}, {high:+.2f}]".replace("-", "−")
            for low, high in zip(table["low_images"], table["high_images"], strict=True)
        ]
    shown["found with power 0.8"] = table["detectable"].map(lambda x: f"{x:.2f}" if x == x else "")
    shown["verdict"] = table["verdict"]
    if "same_losses" in table:  # what is left is the noise of seeds and rounding
        shown["verdict"] += table["same_losses"].map({True: ", same losses"}).fillna("")
    return shown.to_markdown(index=False, disable_numparse=True)


def interval_text(table: pd.DataFrame) -> list[str]:
    """The differences with their intervals, ``+0.72 [−0.38, +1.82]``; empty where there is none."""
    numbers = zip(table["difference"], table["low"], table["high"], strict=True)
    return [
        "" if math.isnan(d) else f"{d:+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")
        for d, low, high in numbers
    ]


def p_text(p: float) -> str:
    """A p as papers write it: ``.042``, ``< .001``."""
    if math.isnan(p):
        return ""
    return "< .001" if p < 0.0005 else f"{p:.3f}".removeprefix("0")
