"""Images packed as JPEG, read a crop at a time.

A split is a safetensors file like those of the other datasets, memory-mapped when it is read:
``content`` (T,) uint8, the bytes of all images one after the other; ``ends`` (M,) int64, the end of
each image in them; ``sizes`` (M, 2) int64, height and width; ``labels`` (M,) int64.
"""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader


def _decode(content: np.ndarray) -> Tensor:
    """Decode the bytes of a JPEG to (3, H, W) uint8."""
    with Image.open(BytesIO(content.data)) as image:
        pixels = np.array(image.convert("RGB"))  # (H, W, 3)
    return torch.from_numpy(pixels).permute(2, 0, 1)


class Jpegs:
    """The images of a packed split.

    Args:
        tensors: of the file, mapped or in memory.
        size: S, the side of the crops in pixels.
        short_side: the centre crop is S / short_side of an image's short side.
    """

    def __init__(self, tensors: dict[str, Tensor], size: int, short_side: int) -> None:
        self.content = tensors["content"].numpy()  # (T,)
        self.ends = tensors["ends"].numpy()  # (M,)
        self.sizes = tensors["sizes"]  # (M, 2), height and width
        self.size = size
        self.centre = size / short_side  # side of the centre crop, relative to the short side

    def __len__(self) -> int:
        return len(self.ends)

    def crops(self, i: int, boxes: Tensor) -> Tensor:
        """Crop image i to boxes (V, 4), resized to (V, 3, S, S) uint8.

        A box is top, left, height, width in pixels.
        """
        start = int(self.ends[i - 1]) if i else 0
        image = _decode(self.content[start : int(self.ends[i])])[None]  # (1, 3, H, W)
        size = (self.size, self.size)
        # the same as torchvision's resized_crop, without its import, which takes a second
        cropped = [
            interpolate(image[..., y : y + h, x : x + w], size, mode="bilinear", antialias=True)
            for y, x, h, w in boxes.tolist()
        ]
        return torch.cat(cropped)

    def centres(self, images: Tensor | slice = slice(None)) -> Tensor:
        """The boxes (M, 4) that are evaluated: the centre, as MoCo's inner 224 of 256 pixels."""
        sizes = self.sizes[images]  # (M, 2)
        side = (sizes.amin(dim=1) * self.centre).round().long()  # (M,)
        corner = (sizes - side[:, None]) // 2  # (M, 2)
        return torch.cat([corner, side[:, None], side[:, None]], dim=1)


class Centres:
    """The centre crops of a split's images, as batches (B, 3, S, S) uint8."""

    def __init__(self, images: Jpegs, batch: int) -> None:
        self.images, self.batch = images, batch
        self.boxes = images.centres()

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch)

    def __getitem__(self, index: int) -> Tensor:
        rows = range(len(self.images))[index * self.batch :][: self.batch]
        return torch.cat([self.images.crops(i, self.boxes[i : i + 1]) for i in rows])


def in_workers(items: Any, order: range, device: torch.device) -> Iterator[Tensor]:
    """Items (tensors) in an order, prepared ahead by a worker process per CPU thread."""
    loader = DataLoader(
        items,
        batch_size=None,
        sampler=order,
        num_workers=torch.get_num_threads(),
        multiprocessing_context="fork",  # workers share the memory map without a copy
        pin_memory=device.type == "cuda",
    )
    return iter(loader)
