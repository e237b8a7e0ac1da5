"""The facts about each method that a study is checked against, one line in METHODS each.

No torch is imported here; ``eqco.methods.build`` makes a method.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A method's module and class, the size of its pool of negatives, and its kind."""

    location: str  # module:class
    candidates: Callable[[int, int | None], int | None]  # of (batch, queue); None is no limit
    momentum: bool = False  # its keys come from a momentum encoder
    symmetric: bool = False  # `pretrain.symmetric` is a choice


def others(batch: int, queue: int | None) -> int:
    """The other images of the batch, in one view."""
    return batch - 1


def both_views(batch: int, queue: int | None) -> int:
    """Both views of the other images of the batch."""
    return 2 * (batch - 1)


def queued(batch: int, queue: int | None) -> int | None:
    """The keys of a queue; a queue without a given length has K."""
    return queue


METHODS = {
    "simclr": Entry("eqco.methods.simclr:SimCLR", both_views),
    "moco": Entry("eqco.methods.moco:MoCo", queued, momentum=True, symmetric=True),
    "simo": Entry("eqco.methods.simo:SiMo", others, momentum=True),
    "simmoco": Entry("eqco.methods.simo:SiMo", others, momentum=True, symmetric=True),
    "simco": Entry("eqco.methods.simco:SimCo", others),
    "dhel": Entry("eqco.methods.dhel:DHEL", others),
    "nnclr": Entry("eqco.methods.nnclr:NNCLR", others),
}
