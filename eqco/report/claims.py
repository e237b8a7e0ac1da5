"""The comparisons of a study and the verdicts on its claims, computed from its accuracies."""

from typing import Any

import pandas as pd

from eqco.errors import InputError
from eqco.report.comparisons import LEVEL, compare, interval_text, p_text
from eqco.report.statistics import holm
from eqco.study.claims import Claim, Expected
from eqco.study.study import Study

METHOD = (
    "Differences are paired by seed, and unpaired by Welch where the seeds differ; intervals are "
    "95 % t intervals, p is two-sided and adjusted by Holm, equivalence is by two one-sided t tests"
)
SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"


def comparisons(study: Study, accuracies: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Every comparison of a study by name, as ``comparisons.compare`` gives it.

    Args:
        study: the study.
        accuracies: of ``tables.read_study``.

    Raises:
        InputError: a comparison has nothing to compare.
    """
    tables = {}
    for comparison in study.comparisons:
        try:
            tables[comparison.name] = compare(accuracies, comparison)
        except InputError as error:
            raise InputError(f"{study.study}: comparisons: {comparison.name}: {error}") from None
    return tables


def claims(study: Study, accuracies: pd.DataFrame) -> pd.DataFrame:
    """Decide every claim of a study.

    Args:
        study: the study.
        accuracies: of ``tables.read_study``.

    Returns:
        A row per claim: ``claim``, ``source``, ``comparison``, ``protocol``, ``expected``,
        ``family``, ``n``, ``difference``, ``low``, ``high`` (95 % t interval), ``p`` of the test
        that would support it, ``p_family``, by Holm over the claims of the family, ``detectable``,
        ``equivalence``, its bound in points, and ``verdict``.

    Raises:
        InputError: a claim's values leave no row of its comparison, or several.
    """
    by_name = {one.name: one for one in study.comparisons}
    compared = {
        name: compare(accuracies, by_name[name].model_copy(update={"correct": "none"}))
        for name in dict.fromkeys(claim.comparison for claim in study.claims)
    }
    rows = [
        {
            **_row(study, i, claim, compared[claim.comparison]),
            "equivalence": by_name[claim.comparison].equivalence,
        }
        for i, claim in enumerate(study.claims)
    ]
    table = pd.DataFrame(rows)
    is_equivalence = table["expected"] == "equivalent"
    table["p"] = table["p_equivalence"].where(is_equivalence, table["p"])
    for adjusted, raw in (("p_family", "p"), ("p_equivalence", "p_equivalence")):
        table[adjusted] = table[raw]
        for _, family in table.dropna(subset=[raw]).groupby("family", sort=False):
            table.loc[family.index, adjusted] = holm(family[raw].tolist())
    table["verdict"] = [verdict(row) for _, row in table.iterrows()]
    names = ["claim", "source", "comparison", "protocol", "expected", "family", "n"]
    names += ["difference", "low", "high", "p", "p_family", "detectable", "equivalence", "verdict"]
    return table[names]


def _row(study: Study, i: int, claim: Claim, table: pd.DataFrame) -> dict[str, Any]:
    rows = table[table["protocol"] == claim.protocol]
    for axis, value in claim.where.items():
        rows = rows[rows[axis].astype(str) == value] if axis in rows else rows
    if len(rows) != 1:
        left = "; ".join(_named(table, row) for _, row in rows.iterrows()) or "none"
        raise InputError(
            f"{study.study}: claims.{i}.where: must leave one row of {claim.comparison}: {left}"
        )
    numbers = rows.iloc[0].reindex(
        ["n", "difference", "low", "high", "p", "p_equivalence", "detectable"]
    )
    return {**claim.model_dump(exclude={"where"}), **{str(k): v for k, v in numbers.items()}}


def _named(table: pd.DataFrame, row: Any) -> str:
    axes = [name for name in list(table)[: list(table).index("test")] if table[name].nunique() > 1]
    return " ".join(f"{name}={row[name]}" for name in axes)


def verdict(claim: "pd.Series[Any]") -> str:
    """The verdict on a row of ``claims``.

    A direction is supported by a difference in it, and contradicted by one against it or by
    equivalence. Equivalence is supported by its test, and contradicted by an interval that lies
    beyond the bound. All p are those adjusted in the family, at 5 %; the interval is not adjusted.
    """
    expected: Expected = claim["expected"]
    equivalent = claim["p_equivalence"] < LEVEL  # NaN, without a bound, is not
    if expected == "equivalent":
        beyond = max(claim["low"], -claim["high"]) > claim["equivalence"]
        return SUPPORTED if equivalent else CONTRADICTED if beyond else UNDECIDED
    if equivalent:
        return CONTRADICTED
    if not claim["p_family"] < LEVEL:
        return UNDECIDED
    return SUPPORTED if (claim["difference"] > 0) == (expected == "above") else CONTRADICTED


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table of ``claims`` for a reader: text in its cells."""
    if not len(table):
        return table
    return pd.DataFrame(
        {
            "claim": table["claim"] + " (" + table["source"] + ")",
            "verdict": table["verdict"],
            "difference [95 %]": interval_text(table),
            "n": table["n"],
            "expected": [
                f"within ± {row.equivalence:g}" if row.expected == "equivalent" else row.expected
                for row in table.itertuples()
            ],
            "protocol": table["protocol"],
            "p, family": table["p_family"].map(p_text),
            "found with power 0.8": table["detectable"].map("{:.2f}".format),
        }
    )


def markdown(table: pd.DataFrame) -> str:
    """The table of ``claims`` in Markdown."""
    marked = shown(table).assign(verdict="**" + table["verdict"] + "**")
    return marked.to_markdown(index=False, disable_numparse=True)
