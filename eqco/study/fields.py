"""The types of a study's fields: numbers, names, margins, and a section with strict keys."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from eqco.study.methods import METHODS


def _number(value: Any) -> Any:
    """Read ``1e-4``, which YAML 1.1 takes for text, as the number that its writer meant."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _margin(value: Any) -> Any:
    value = _number(value)
    if value == "eqco" or (isinstance(value, int | float) and not isinstance(value, bool)):
        if value != value or value == -math.inf:
            raise PydanticCustomError("margin", "must be a number, 'eqco' or 'inf'")
        return value
    raise PydanticCustomError("margin", "must be a number, 'eqco' or 'inf'")


Real = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[Real, Field(gt=0)]
NotNegative = Annotated[Real, Field(ge=0)]
Probability = Annotated[Real, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Margin = Annotated[
    float | Literal["eqco"],
    BeforeValidator(_margin),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": ["eqco", "inf"]}]}),
]
# A name becomes a folder: no separator, no leading dot, nothing that a shell reads.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
Loss = Literal[
    "info-nce",
    "dclw",
    "dual-temperature",
    "macl",
    "siglip",
    "sogclr",
    "info-nce-rescaled",
    "info-nce-rescaled-rms",
    "dcl-rescaled",
    "dcl-rescaled-rms",
    "dcl-rolled",
    "dcl-by-negatives",
    "dcl-by-positive",
    "dcl-by-scalar-negatives",
    "dcl-constant",
]
WITH_MARGIN: tuple[Loss, ...] = (
    *("info-nce", "dcl-rolled", "dcl-by-negatives", "dcl-by-positive"),
    "dcl-by-scalar-negatives",
    "siglip",
)
# keys of a study's `loss` that a loss reads; the others read none
LOSS_SETTINGS: dict[Loss, tuple[str, ...]] = {
    "dclw": ("sigma", "detach"),
    "dual-temperature": ("inter",),
    "macl": ("slope", "threshold"),
    "siglip": ("bias",),
    "sogclr": ("gamma",),
    "dcl-constant": ("constant",),
    "dcl-by-scalar-negatives": ("scalar_negatives",),
}
Optimizer = Literal["sgd", "normalised-sgd", "lars", "adamw"]


def _method(value: Any) -> Any:
    if not isinstance(value, str) or value not in METHODS:
        raise PydanticCustomError(
            "allowed", "must be one of {names}", {"names": ", ".join(METHODS)}
        )
    return value


BACKBONES = ("conv5", "resnet18", "resnet50")
TIMM = "timm/"  # begins the name of a backbone of the library timm
_TIMM_MODEL = rf"^{TIMM}[A-Za-z0-9_]+$"


def _backbone(value: Any) -> Any:
    if not isinstance(value, str) or not (value in BACKBONES or re.fullmatch(_TIMM_MODEL, value)):
        raise PydanticCustomError(
            "allowed",
            "must be one of {names} or timm/<model>, as timm/vit_small_patch16_224",
            {"names": ", ".join(BACKBONES)},
        )
    return value


Backbone = Annotated[
    str,
    BeforeValidator(_backbone),
    WithJsonSchema(
        {"anyOf": [{"enum": list(BACKBONES)}, {"type": "string", "pattern": _TIMM_MODEL}]}
    ),
]
Method = Annotated[str, BeforeValidator(_method), Field(json_schema_extra={"enum": list(METHODS)})]


class Section(BaseModel):
    """A part of a study: types are strict and unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        ser_json_inf_nan="strings",  # JSON has no infinity
        serialize_by_alias=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _unknown_key(cls, values: Any) -> Any:
        if isinstance(values, dict):
            known = {field.alias or name for name, field in cls.model_fields.items()}
            for key in values:
                if key not in known:
                    raise PydanticCustomError(
                        "message",
                        "unknown key {key}; allowed: {allowed}",
                        {"key": repr(key), "allowed": cls.allowed()},
                    )
        return values

    @classmethod
    def allowed(cls) -> str:
        """The keys of this section, for the message about an unknown one."""
        return ", ".join(field.alias or name for name, field in cls.model_fields.items())


def refuse(key: str, value: Any, allowed: str) -> None:
    """Raise the error of a validator that says which key, which value and what is allowed."""
    raise PydanticCustomError(
        "message", "{key}: {value}: {allowed}", {"key": key, "value": value, "allowed": allowed}
    )
