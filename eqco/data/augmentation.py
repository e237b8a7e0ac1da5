"""Augmentation of a batch: draw parameters for every image, then apply the operations.

The parameters are drawn as torchvision's transforms draw them, but for every image of the batch.
"""

import math
import random
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from eqco.data.operations import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    blur_some,
    erase,
    grayscale,
    horizontal_flip,
    normalise,
    resized_crop,
)
from eqco.runtime.ranks import WHOLE, Share
from eqco.study.recipe import Augment, Jitter

ATTEMPTS = 10  # candidate boxes before an operation gives up, as in torchvision
IN_CACHE = 2**18  # pixels of all channels: 1 MB of float32, a core's second-level cache
ASPECT = 4 / 3  # largest ratio of the sides of a crop, as in torchvision

# what is done to images (b, C, H, W), and its parameters (B,)
Operation = tuple[Callable[..., Tensor], tuple[Tensor, ...]]


class Augmentation:
    """Make a view of each image: draw random parameters for it, then apply the operations.

    The images of a batch share one thing: the order of the four colour operations, which
    torchvision draws for every image.

    Args:
        params: the operations and their probabilities; see params/README.md.
        mean: of each channel (C,), in [0, 1]; views are normalised before they are erased.
        std: of each channel (C,).
        share: the rows of a larger batch that the images are. Their parameters are those that they
            get within the whole batch.
    """

    def __init__(self, params: Augment, mean: Tensor, std: Tensor, share: Share = WHOLE) -> None:
        self.params = params
        self.mean, self.std = mean, std
        self.share = share

    def __call__(self, images: Tensor, seed: int) -> Tensor:
        """Views (B, C, H, W), float and normalised, of uint8 images (B, C, H, W) with H = W.

        The views depend on the images and the seed alone. Their memory is channels last.
        """
        operations = list(self._draw(images, seed))
        views = torch.empty(images.shape, device=images.device, memory_format=torch.channels_last)
        # a CPU applies all operations to a few images, which stay in its cache
        few = len(images) if images.is_cuda else max(1, IN_CACHE // images[0].numel())
        for start in range(0, len(images), few):
            part = slice(start, start + few)
            x = images[part].float().div_(255)
            for operation, parameters in operations:
                x = operation(x, *(values[part] for values in parameters))
            views[part] = x
        return views

    def _draw(self, images: Tensor, seed: int) -> Iterator[Operation]:
        """The operations in their order, with their parameters for each image."""
        params = self.params
        # filled on the device: a copy from the host would wait for the device
        sizes = torch.full((1, 2), images.shape[2], device=images.device)
        draw = _Draw(len(images), sizes, seed, self.share)
        if params.crop:
            yield partial(resized_crop, size=images.shape[2]), _crop_box(draw, params.crop)
        if params.flip:
            yield horizontal_flip, (draw.chance(params.flip),)
        if params.jitter:
            yield from _color_jitter(draw, params.jitter)
        if params.grayscale:
            yield grayscale, (draw.chance(params.grayscale),)
        if params.blur:
            low, high = params.blur.sigma
            sigma = draw.uniform(low, high)
            blurred = draw.chance(params.blur.p)
            yield partial(blur_some, kernel=params.blur.kernel), (blurred, sigma)
        yield partial(normalise, mean=self.mean, std=self.std), ()
        if params.erase:
            top, left, height, width = _erase_box(draw)
            yield erase, (top, left, height * draw.chance(params.erase), width)


def crop_boxes(sizes: Tensor, area: list[float], seed: int, share: Share = WHOLE) -> Tensor:
    """The boxes of random resized crops: (B, 4), top, left, height, width in whole pixels.

    Args:
        sizes: height and width of each image (B, 2).
        area: range [low, high] of the crop's area, as a fraction of the image's.
        seed: the boxes depend on the seed and the sizes alone.
        share: the rows of a larger batch that the images are.
    """
    draw = _Draw(len(sizes), sizes, seed, share)
    return torch.stack(_crop_box(draw, area), dim=1).long()


class _Draw:
    """Random numbers for each of B images, a function of the seed.

    Args:
        batch: B.
        sizes: height and width of each image (B, 2), or (1, 2) if all have the same.
        seed: of all numbers.
        share: the rows of a larger batch that the images are.
    """

    def __init__(self, batch: int, sizes: Tensor, seed: int, share: Share = WHOLE) -> None:
        self.batch, self.share, self.device = batch, share, sizes.device
        self.height, self.width = sizes.T  # (B,) or (1,) each
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.host = random.Random(seed)  # for what the batch shares, without a wait for the device

    def uniform(self, low: float, high: float, count: int | None = None) -> Tensor:
        """Draw (B,) numbers from U(low, high), or (B, count)."""
        rows = self.batch * self.share.of
        shape = (rows,) if count is None else (rows, count)
        numbers = torch.rand(shape, generator=self.generator, device=self.device)
        return low + (high - low) * self.share(numbers)

    def chance(self, p: float) -> Tensor:
        """Draw (B,) booleans, true with probability p."""
        return self.uniform(0, 1) < p

    def sides(
        self, area: tuple[float, float], aspect: tuple[float, float]
    ) -> tuple[Tensor, Tensor]:
        """Draw ATTEMPTS pairs of sides in whole pixels for each image, two of (B, ATTEMPTS).

        The product of a pair is drawn from U(area) as a fraction of the image's, the quotient
        log-uniformly from ``aspect``.
        """
        pixels = self.uniform(*area, ATTEMPTS) * (self.height * self.width)[:, None]
        quotient = self.uniform(math.log(aspect[0]), math.log(aspect[1]), ATTEMPTS).exp()
        return (pixels * quotient).sqrt().round(), (pixels / quotient).sqrt().round()

    def corner(self, length: Tensor, size: Tensor) -> Tensor:
        """Draw (B,) whole pixels, uniform over the places in ``size`` at which ``length`` fits."""
        return (self.uniform(0, 1) * (size - length + 1)).floor()


def _first(valid: Tensor, candidates: Tensor, fallback: Tensor) -> Tensor:
    """For each image the first valid of its (B, ATTEMPTS) candidates, or the fallback: (B,)."""
    index = valid.int().argmax(dim=1, keepdim=True)  # (B, 1)
    return torch.where(valid.any(dim=1), candidates.gather(1, index)[:, 0], fallback)


def _crop_box(draw: _Draw, area: list[float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A random crop: top, left, height, width, (B,) each.

    If no candidate fits, it is the largest box in the middle whose sides are at most ASPECT apart.
    """
    width, height = draw.sides((area[0], area[1]), (1 / ASPECT, ASPECT))  # (B, ATTEMPTS)
    fits_across = (width >= 1) & (width <= draw.width[:, None])
    fits = fits_across & (height >= 1) & (height <= draw.height[:, None])
    width = _first(fits, width, torch.minimum(draw.width, (draw.height * ASPECT).round()))
    height = _first(fits, height, torch.minimum(draw.height, (draw.width * ASPECT).round()))
    centred = ~fits.any(dim=1)  # (B,)
    top = draw.corner(height, draw.height)
    top = torch.where(centred, ((draw.height - height) / 2).floor(), top)
    left = draw.corner(width, draw.width)
    left = torch.where(centred, ((draw.width - width) / 2).floor(), left)
    return top, left, height, width


def _erase_box(draw: _Draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A random box: top, left, height, width, (B,) each; of no height if no candidate fits."""
    height, width = draw.sides((0.02, 0.33), (0.3, 3.3))  # (B, ATTEMPTS)
    fits = (height < draw.height[:, None]) & (width < draw.width[:, None])
    nothing = torch.zeros_like(draw.height)
    height, width = _first(fits, height, nothing), _first(fits, width, nothing)
    return draw.corner(height, draw.height), draw.corner(width, draw.width), height, width


def _color_jitter(draw: _Draw, jitter: Jitter) -> Iterator[Operation]:
    jittered = draw.chance(jitter.p)  # (B,)
    operations = [
        (adjust_brightness, jitter.brightness, 1.0),
        (adjust_contrast, jitter.contrast, 1.0),
        (adjust_saturation, jitter.saturation, 1.0),
        (adjust_hue, jitter.hue, 0.0),
    ]
    draw.host.shuffle(operations)
    for adjust, strength, neutral in operations:
        if strength:
            amount = draw.uniform(neutral - strength, neutral + strength)
            yield adjust, (torch.where(jittered, amount, neutral),)
