"""The methods, one file each; ``eqco.study.methods`` has one line for each.

A method turns two views of a batch into the similarities that a loss reads: of every anchor with
its positive and with its K negatives.
"""

from importlib import import_module

from eqco.methods.base import Contrastive
from eqco.networks.encoder import Encoder
from eqco.study.cell import Cell
from eqco.study.methods import METHODS
from eqco.study.recipe import Pretrain


def build(cell: Cell, encoder: Encoder, recipe: Pretrain) -> Contrastive:
    """The method of ``cell`` around an encoder, which it trains."""
    module, name = METHODS[cell.method].location.split(":")
    method: Contrastive = getattr(import_module(module), name)(encoder, cell, recipe)
    return method
