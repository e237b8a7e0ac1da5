"""The losses, on cosine similarities; torch is all they need."""

from eqco.losses.family import (
    Negatives,
    dcl,
    dclw,
    dual_temperature,
    eqco_margin,
    info_nce,
    weight,
)
from eqco.losses.negatives import SharedNegatives

__all__ = [
    "Negatives",
    "SharedNegatives",
    "dcl",
    "dclw",
    "dual_temperature",
    "eqco_margin",
    "info_nce",
    "weight",
]
