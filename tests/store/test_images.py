"""Which images are right survives its text, whatever their number."""

import numpy as np
from hypothesis import given
from hypothesis.extra.numpy import arrays

from eqco.store.images import pack, unpack


@given(arrays(bool, (37,)), arrays(bool, (8,)))
def test_packed_and_unpacked_it_is_the_same(first, second):
    for correct in (first, second, np.zeros(0, bool)):
        assert (unpack(pack(correct)) == correct).all()
        assert len(unpack(pack(correct))) == len(correct)
