"""The keys of a recipe that can be axes of a grid, and the names of axes in paths and tables."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, get_args

from pydantic import Field, create_model

from eqco.study.fields import Positive, Section
from eqco.study.recipe import Augment, LossSettings, Network, Pretrain

__all__ = ["KEYS", "LISTS", "SECTIONS", "With", "hashable", "name_of", "text"]

SECTIONS: dict[str, type[Section]] = {
    "augment": Augment,
    "network": Network,
    "pretrain": Pretrain,
    "loss": LossSettings,
}
LISTS = {  # a block's own keys for axes of the recipe
    "alphas": "alpha",
    "temperatures": "temperature",
    "batches": "pretrain.batch",
    "optimizers": "pretrain.optimizer",
    "lrs": "pretrain.lr",
    "weight_decays": "pretrain.weight_decay",
}


def _keys(section: type[Section], above: str) -> Iterator[tuple[str, Any]]:
    """The dotted keys of a section and of those within it, each with its type."""
    for name, field in section.model_fields.items():
        key = f"{above}.{name}"
        alternatives = (field.annotation, *get_args(field.annotation))
        inner = [a for a in alternatives if isinstance(a, type) and issubclass(a, Section)]
        if inner:
            yield from _keys(inner[0], key)
        elif field.metadata:
            yield key, Annotated[field.annotation, *field.metadata]
        else:
            yield key, field.annotation


_TYPES = dict(pair for name, section in SECTIONS.items() for pair in _keys(section, name))
_TYPES |= {"alpha": Positive, "temperature": Positive}
# in the order of a path: those with a list of their own in a block first
KEYS = {key: _TYPES[key] for key in (*LISTS.values(), *_TYPES)}


class _Checked(Section):
    """A mapping whose unknown keys are told in one line; they are too many to list them all."""

    @classmethod
    def allowed(cls) -> str:
        return f"alpha, temperature and every key of {', '.join(SECTIONS)}, as pretrain.ema"


With = create_model(
    "With",
    __base__=_Checked,
    __doc__="Values of keys of the recipe: every combination of these lists.",
    **{
        key: (
            Annotated[list[kind], Field(min_length=1)] | None,  # type: ignore[valid-type]
            Field(None, exclude_if=lambda values: values is None),
        )
        for key, kind in KEYS.items()
    },
)  # type: ignore[call-overload]


def name_of(key: str) -> str:
    """An axis's name in paths and tables: ``weight_decay`` of ``pretrain.weight_decay``.

    The section is left out, and no two keys share a name.
    """
    return "_".join(key.split(".")[1:]) or key


def hashable(value: Any) -> Any:
    """A value of a study file that can be part of a key: a tuple in place of a list."""
    return tuple(value) if isinstance(value, list) else value


def text(value: Any) -> str:
    """The text of an axis value in paths and tables: ``simo``, ``0.2``, ``inf``, ``true``.

    Of a file's name or a model's, what a path or a shell would read is replaced by ``-``.
    """
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case str():
            return re.sub(r"[^A-Za-z0-9._+-]", "-", value)
        case list() | tuple():
            return "-".join(map(text, value))
        case _:
            return f"{value:.12g}"
