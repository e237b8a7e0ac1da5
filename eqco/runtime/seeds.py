"""A seed for every random draw of a run, so that a resumed run needs no random state."""

from typing import Literal, get_args

import numpy as np

Stream = Literal[
    "weights",
    "order",
    "views",
    "negatives",
    "crops",
    "probe",
    "geometry",
    "labels",
    "finetune",
]
STREAMS = get_args(Stream)  # their order is part of every seed


def draw_seed(seed: int, stream: Stream, index: int) -> int:
    """A seed in [0, 2⁶³) for one draw.

    Args:
        seed: the cell's seed.
        stream: the purpose of the draw.
        index: the step or epoch of the draw.
    """
    sequence = np.random.SeedSequence([seed, STREAMS.index(stream), index])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
