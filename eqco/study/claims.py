"""Comparisons and claims of a study file: what is compared, and what is expected of it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from eqco.study.axes import text
from eqco.study.fields import Name, Positive, Section

if TYPE_CHECKING:
    from eqco.study.study import Study

Expected = Literal["above", "below", "equivalent"]


def _text(value: Any) -> Any:
    return text(value) if isinstance(value, int | float) else value


def _list(values: Any) -> Any:
    return values if isinstance(values, list) else [values]


# a value of an axis, as a table writes it
_ONE = {"type": ["string", "number"]}
Text = Annotated[str, BeforeValidator(_text), WithJsonSchema(_ONE)]
Texts = Annotated[
    list[Text],
    BeforeValidator(_list),
    WithJsonSchema({"anyOf": [_ONE, {"type": "array", "items": _ONE}]}),
]
Values = dict[str, Text]


class Comparison(Section):
    """Configurations against the ones that have other values of the named axes alone."""

    name: Name = Field(description="a name, for claims")
    against: Annotated[Values, Field(min_length=1)] = Field(
        description="the reference's values by axis: `{margin: 0}` sets every configuration "
        "against the one that has margin 0 and is else the same"
    )
    where: dict[str, Texts] = Field(
        {},
        description="the values by axis of what is compared, one or a list: `{negatives: [1, 4]}`; "
        "default: all",
    )
    pool: list[str] = Field([], description="axes whose values are averaged, seed by seed")
    protocol: str | None = Field(None, description="one protocol; default: each")
    equivalence: Positive | None = Field(
        None, description="points within which a difference is of no interest"
    )
    correct: Literal["holm", "none"] = Field(
        "holm", description="of p, for the number of rows by a protocol"
    )


class Claim(Section):
    """A sentence, and the comparison that decides it."""

    claim: str = Field(description="the sentence")
    source: str = Field(description="who says so: a paper, or this project")
    comparison: Name = Field(description="the comparison that decides it, by name")
    where: Values = Field({}, description="the values by axis that leave one row of it")
    protocol: str = Field(description="the protocol that decides it")
    expected: Expected = Field(description="the verdict that would support it")
    family: Name = Field("claims", description="claims whose p are adjusted together, by Holm")


def comparisons_can_be_made(study: "Study") -> Iterator[tuple[str, Any, str]]:
    """Comparisons have names of their own, and axes, values and protocols of the study."""
    names = [comparison.name for comparison in study.comparisons]
    known = _values(study)
    for i, comparison in enumerate(study.comparisons):
        key = f"comparisons.{i}"
        if comparison.name in names[:i]:
            yield f"{key}.name", comparison.name, "is the name of another comparison"
        yield from _unknown(f"{key}.against", comparison.against, known)
        yield from _unknown(f"{key}.where", comparison.where, known)
        for axis in comparison.pool:
            if axis not in known or axis in comparison.against:
                others = ", ".join(name for name in known if name not in comparison.against)
                yield f"{key}.pool", axis, f"must be one of {others}"
        yield from _protocol(study, key, comparison.protocol)


def claims_have_a_comparison(study: "Study") -> Iterator[tuple[str, Any, str]]:
    """A claim names a comparison and a protocol of its study; equivalence needs its bound."""
    by_name = {comparison.name: comparison for comparison in study.comparisons}
    for i, claim in enumerate(study.claims):
        key = f"claims.{i}"
        comparison = by_name.get(claim.comparison)
        if comparison is None:
            yield f"{key}.comparison", claim.comparison, f"must be one of {', '.join(by_name)}"
            continue
        yield from _unknown(f"{key}.where", claim.where, _values(study))
        yield from _protocol(study, key, claim.protocol)
        if comparison.protocol not in (None, claim.protocol):
            allowed = f"{comparison.name} is by {comparison.protocol} alone"
            yield f"{key}.protocol", claim.protocol, allowed
        if claim.expected == "equivalent" and comparison.equivalence is None:
            allowed = f"{comparison.name} has no equivalence, a bound in points"
            yield f"{key}.expected", claim.expected, allowed


def _protocol(study: "Study", key: str, protocol: str | None) -> Iterator[tuple[str, Any, str]]:
    if protocol not in (None, *study.protocols):
        yield f"{key}.protocol", protocol, f"must be one of {', '.join(study.protocols)}"


def _unknown(
    key: str, named: dict[str, Any], known: dict[str, list[str]]
) -> Iterator[tuple[str, Any, str]]:
    """Axes and values that the study does not have; any number may be an α."""
    for axis, values in named.items():
        if axis not in known:
            yield key, axis, f"not an axis; allowed: {', '.join(known)}"
            continue
        for value in values if isinstance(values, list) else [values]:
            if axis != "alpha" and value not in known[axis]:
                yield f"{key}.{axis}", value, f"no such value; allowed: {', '.join(known[axis])}"


def _values(study: "Study") -> dict[str, list[str]]:
    """The values of each column of the study's table that can be compared, as it writes them."""
    columns: dict[str, dict[str, None]] = {}
    for _, path, cell in study.places:
        values = dict(part.split("~", 1) for part in path.split("/"))
        values |= {"alpha": "", "temperature": text(cell.temperature)}
        for axis, value in values.items():
            columns.setdefault(axis, {})[value] = None
    for name in ("seed", study.select.axis if study.select else ""):
        columns.pop(name, None)
    return {axis: list(values) for axis, values in columns.items()}
