"""Which test images a protocol got right, kept as text: a bit per image, in base64."""

from base64 import b64decode, b64encode

import numpy as np


def pack(correct: np.ndarray) -> str:
    """The text of (M,) bool: the number of images, a colon, and their bits."""
    return f"{len(correct)}:{b64encode(np.packbits(correct).tobytes()).decode()}"


def unpack(text: str) -> np.ndarray:
    """The (M,) bool that ``pack`` has packed."""
    count, _, bits = text.partition(":")
    packed = np.frombuffer(b64decode(bits), np.uint8)
    return np.unpackbits(packed, count=int(count)).astype(bool)
