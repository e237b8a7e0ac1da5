"""Images of files of any format and size, as arrays of one size."""

from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from eqco.errors import InputError


def fitted(file: Path | IO[bytes], size: int, name: str) -> np.ndarray:
    """An image (3, size, size) uint8: RGB, resized to the short side, cropped in the centre.

    Raises:
        InputError: if it is no readable image; ``name`` is its name in the message.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            fit = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
    except UnidentifiedImageError:  # its text has the address of bytes in memory
        raise InputError(f"{name}: is not a readable image: its format is unknown") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{name}: is not a readable image: {error}") from None
    return np.asarray(fit).transpose(2, 0, 1)


def counted(images: Iterable[np.ndarray], count: int, split: str) -> Iterable[np.ndarray]:
    """The images of a split, with a bar of how far they are, on the standard error."""
    from rich.console import Console
    from rich.progress import track

    return track(images, f"{split} images", count, console=Console(stderr=True))
