"""A seed for every random draw of a run, so that no random state is carried from step to step."""

from typing import Literal

import numpy as np

Stream = Literal["weights", "order", "views", "negatives", "crops", "probe"]
STREAMS = ("weights", "order", "views", "negatives", "crops", "probe")


def draw_seed(seed: int, stream: Stream, index: int) -> int:
    """A seed in [0, 2⁶³) for one draw of one stream.

    Every random draw of a run is a function of the cell's seed, what it is for, and the step or
    epoch.
    """
    sequence = np.random.SeedSequence([seed, STREAMS.index(stream), index])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
