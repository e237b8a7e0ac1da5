"""The losses, on cosine similarities. They need torch alone."""

from eqco.losses.family import (
    dcl,
    dclw,
    dual_temperature,
    eqco_margin,
    info_nce,
    macl,
    weight,
)
from eqco.losses.modules import DCLLoss, DualTemperatureLoss, EqCoLoss
from eqco.losses.shared_negatives import SharedNegatives
from eqco.losses.siglip import siglip
from eqco.losses.similarities import Negatives
from eqco.losses.sogclr import SogCLR

__all__ = [
    "DCLLoss",
    "DualTemperatureLoss",
    "EqCoLoss",
    "Negatives",
    "SharedNegatives",
    "SogCLR",
    "dcl",
    "dclw",
    "dual_temperature",
    "eqco_margin",
    "info_nce",
    "macl",
    "siglip",
    "weight",
]
