"""The methods: one file each, and one line in METHODS.

A method turns two views of a batch into the similarities that a loss reads: of every anchor with
its positive and with its K negatives. No torch is imported here: study files are checked against
this table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eqco.methods.base import Contrastive


@dataclass(frozen=True)
class Entry:
    """A method: its class, the candidates of its negatives, and its kind."""

    location: str  # module and class
    candidates: Callable[[int, int | None], int | None]  # of (batch, queue); None is no limit
    momentum: bool = False  # whether its keys come from a momentum encoder
    symmetric: bool = False  # whether `pretrain.symmetric` is a choice

    def build(self, *arguments: Any) -> "Contrastive":
        """Make the method; arguments as for ``Contrastive``."""
        module, name = self.location.split(":")
        return getattr(import_module(module), name)(*arguments)


def others(batch: int, queue: int | None) -> int:
    """The other images of the batch, in one view."""
    return batch - 1


def both_views(batch: int, queue: int | None) -> int:
    """Both views of the other images of the batch."""
    return 2 * (batch - 1)


def queued(batch: int, queue: int | None) -> int | None:
    """The keys of a queue; where its length is not given it is K."""
    return queue


METHODS = {
    "simclr": Entry("eqco.methods.simclr:SimCLR", both_views),
    "moco": Entry("eqco.methods.moco:MoCo", queued, momentum=True, symmetric=True),
    "simo": Entry("eqco.methods.simo:SiMo", others, momentum=True),
    "simmoco": Entry("eqco.methods.simo:SiMo", others, momentum=True, symmetric=True),
    "simco": Entry("eqco.methods.simco:SimCo", others),
    "nnclr": Entry("eqco.methods.nnclr:NNCLR", others),
}
