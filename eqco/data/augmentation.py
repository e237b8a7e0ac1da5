"""Augmentation of a whole batch at once, with its own parameters for every image.

Each operation takes its parameters as tensors of B values and equals torchvision's functional of
the same name on each image (tests/test_augment.py holds them together); ``Augmentation`` draws the
parameters as torchvision's transforms do. Images are float (B, C, H, W) in [0, 1].

Crop, resize and blur are linear along each axis, so each is two matrix products,
``rows @ image @ columnsᵀ``, with small matrices made for every image. The colours of a pixel depend
on each other, so they are worked on as planes (B, H, W).
"""

import math
import random
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from eqco.runtime.ranks import WHOLE, Share
from eqco.study.study import Augment, Jitter

ATTEMPTS = 10  # boxes drawn before an operation gives up, as in torchvision


def _separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply (B, h, H) along the height and (B, w, W) along the width: (B, C, h, w)."""
    b, c, height, width = x.shape
    # all channels in one product each: (B, h, H) @ (B, H, C W), then (B, h C, W) @ (B, W, w)
    y = rows @ x.transpose(1, 2).reshape(b, height, c * width)
    y = y.view(b, -1, width) @ columns.transpose(1, 2)
    return y.view(b, -1, c, y.shape[2]).transpose(1, 2).contiguous()


def _resample(start: Tensor, length: Tensor, size: int, out: int) -> Tensor:
    """Bilinear resize of [start, start + length) of ``size`` pixels to ``out``: (B, out, size).

    With antialiasing: when shrinking, the triangle is as wide as the step between outputs.
    """
    scale = (length / out)[:, None, None]  # (B, 1, 1)
    centre = (torch.arange(out, device=start.device) + 0.5)[:, None] * scale  # (B, out, 1)
    pixel = torch.arange(size, device=start.device) + 0.5 - start[:, None, None]  # (B, 1, size)
    distance = (pixel - centre).abs_()  # (B, out, size)
    weight = distance.div_(-scale.clamp(min=1)).add_(1).clamp_(min=0)
    inside = (pixel > 0) & (pixel < length[:, None, None])  # (B, 1, size)
    weight.mul_(inside)
    return weight.div_(weight.sum(dim=2, keepdim=True))


def resized_crop(
    x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: int
) -> Tensor:
    """Crop each image to its box, in whole pixels (B,), and resize to ``size`` squared."""
    rows = _resample(top, height, x.shape[2], size)
    columns = _resample(left, width, x.shape[3], size)
    return _separable(x, rows, columns)


def horizontal_flip(x: Tensor, flip: Tensor) -> Tensor:
    """Mirror the images where ``flip`` (B,) is true."""
    return _choose(flip, x.flip(3), x)


def _choose(chosen: Tensor, x: Tensor, otherwise: Tensor) -> Tensor:
    """``x`` for the images where ``chosen`` (B,) is true."""
    # exact, and some times as fast as torch.where, whose choices are branches on a CPU
    return torch.lerp(otherwise, x, chosen[:, None, None, None].to(x.dtype))


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    factor = factor[:, None, None, None]
    return (factor * x).add_((1 - factor) * other).clamp_(0, 1)


def rgb_to_grayscale(x: Tensor) -> Tensor:
    """Luminance (B, 1, H, W) by ITU-R 601; grey images are returned as they are."""
    if x.shape[1] == 1:
        return x
    r, g, b = x.unbind(dim=1)
    return (0.2989 * r).add_(g, alpha=0.587).add_(b, alpha=0.114)[:, None]


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with black; ``factor`` (B,) ≥ 0, 1 changes nothing."""
    return (factor[:, None, None, None] * x).clamp_(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean luminance; ``factor`` (B,) ≥ 0, 1 changes nothing."""
    return _blend(x, rgb_to_grayscale(x).mean(dim=(1, 2, 3), keepdim=True), factor)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the luminance; ``factor`` (B,) ≥ 0, 1 changes nothing; grey images stay."""
    return x if x.shape[1] == 1 else _blend(x, rgb_to_grayscale(x), factor)


def adjust_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by ``shift`` (B,) of a full turn, in [-0.5, 0.5]; grey images stay."""
    if x.shape[1] == 1:
        return x
    r, g, b = x.unbind(dim=1)  # (B, H, W) each
    value = torch.maximum(torch.maximum(r, g), b)
    least = torch.minimum(torch.minimum(r, g), b)
    chroma = value - least
    scale = chroma.clamp(min=torch.finfo(x.dtype).tiny).reciprocal_()
    # the hue in sixths of a turn, by which channel is the largest
    sextant = torch.lerp(
        (r - g).mul_(scale).add_(4), (b - r).mul_(scale).add_(2), _is_zero(value - g)
    )
    sextant.lerp_((g - b).mul_(scale), _is_zero(value - r))
    sextant.add_(6 * shift[:, None, None])
    sextant.sub_((sextant / 6).floor_(), alpha=6)  # in [0, 6]
    turned = torch.empty_like(x)
    # each channel is a trapezoid of the hue, around its own colour: 0, 2 and 4 sixths
    for channel, weight in enumerate(
        (
            (sextant - 3).abs_().sub_(1),
            (sextant - 2).abs_().neg_().add_(2),
            (sextant - 4).abs_().neg_().add_(2),
        )
    ):
        torch.addcmul(least, chroma, weight.clamp_(0, 1), out=turned[:, channel])
    return turned


def _is_zero(x: Tensor) -> Tensor:
    """1 where x ≥ 0 is 0, else 0: as numbers, which a CPU works on faster than on truth values."""
    return (x * -1e30).add_(1).clamp_(min=0)


def grayscale(x: Tensor, gray: Tensor) -> Tensor:
    """Replace the images where ``gray`` (B,) is true by their luminance, in every channel."""
    return _choose(gray, rgb_to_grayscale(x), x)


def _smooth(sigma: Tensor, size: int, kernel: int) -> Tensor:
    """Gaussian of ``kernel`` taps with reflected borders, as a matrix: (B, size, size)."""
    radius = kernel // 2
    position = torch.arange(size, device=sigma.device)
    inner, outer = position[None, :], position[:, None]

    def tap(distance: Tensor) -> Tensor:  # (size, size) -> (B, size, size)
        weight = torch.exp(-0.5 * (distance / sigma[:, None, None]) ** 2)
        return weight * (distance.abs() <= radius)

    weight = tap(inner - outer)
    # pixel j > 0 also stands for −j, and j < size − 1 for 2 (size − 1) − j
    weight = weight + tap(-inner - outer) * (inner > 0)
    weight = weight + tap(2 * (size - 1) - inner - outer) * (inner < size - 1)
    return weight / weight.sum(dim=2, keepdim=True)


def gaussian_blur(x: Tensor, sigma: Tensor, kernel: int) -> Tensor:
    """Blur with ``sigma`` (B,) pixels and ``kernel`` taps (odd, under twice the image's side)."""
    rows = _smooth(sigma, x.shape[2], kernel)
    columns = rows if x.shape[2] == x.shape[3] else _smooth(sigma, x.shape[3], kernel)
    return _separable(x, rows, columns)


def erase(x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Set each image's box, in whole pixels (B,), to 0; a box of no height erases nothing."""
    row = torch.arange(x.shape[2], device=x.device)
    column = torch.arange(x.shape[3], device=x.device)
    rows = (row >= top[:, None]) & (row < (top + height)[:, None])  # (B, H)
    columns = (column >= left[:, None]) & (column < (left + width)[:, None])  # (B, W)
    return x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def normalise(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Subtract the ``mean`` (C,) and divide by the ``std`` (C,) of each channel."""
    return (x - mean[:, None, None]).div_(std[:, None, None])


class Augmentation:
    """Make a view of each image: random parameters, drawn for every image, then the operations.

    The one thing shared by a batch is the order of the four colour operations; torchvision draws
    it for every image.

    Args:
        params: what is done, with what probability; see params/README.md.
        mean: of each channel (C,), in [0, 1]; views are normalised before they are erased.
        std: of each channel (C,).
        share: which images of a batch come here: all, or every so many-th from one of them on. The
            parameters are those that these images have within the whole batch.
    """

    def __init__(self, params: Augment, mean: Tensor, std: Tensor, share: Share = WHOLE) -> None:
        self.params = params
        self.mean, self.std = mean, std
        self.share = share

    def __call__(self, images: Tensor, seed: int) -> Tensor:
        """Views (B, C, H, W), float and normalised, of uint8 images (B, C, H, W) with H = W.

        The views are a function of the images and the seed alone.
        """
        params = self.params
        draw = _Draw(len(images), images.shape[2:], images.device, seed, self.share)
        x = images.float().div_(255)
        if params.crop:
            x = resized_crop(x, *_crop_box(draw, params.crop), x.shape[2])
        if params.flip:
            x = horizontal_flip(x, draw.chance(params.flip))
        if params.jitter:
            x = _color_jitter(x, draw, params.jitter)
        if params.grayscale:
            x = grayscale(x, draw.chance(params.grayscale))
        if params.blur:
            low, high = params.blur.sigma
            blurred = gaussian_blur(x, draw.uniform(low, high), params.blur.kernel)
            x = _choose(draw.chance(params.blur.p), blurred, x)
        x = normalise(x, self.mean, self.std)
        if params.erase:
            top, left, height, width = _erase_box(draw)
            x = erase(x, top, left, height * draw.chance(params.erase), width)
        return x


def crop_boxes(sizes: Tensor, area: list[float], seed: int, share: Share = WHOLE) -> Tensor:
    """The boxes of random resized crops: (B, 4), top, left, height, width in whole pixels.

    Args:
        sizes: height and width of each image (B, 2).
        area: of the crop as a share of its image, [low, high].
        seed: what the boxes are a function of, with the sizes.
        share: which images of a batch these are.
    """
    draw = _Draw(len(sizes), sizes.T, sizes.device, seed, share)
    return torch.stack(_crop_box(draw, area), dim=1).long()


class _Draw:
    """Random numbers for each of B images from a seed: those of a share of a larger batch.

    ``height`` and ``width`` are numbers where all images have the same, else (B,).
    """

    def __init__(
        self,
        batch: int,
        sizes: Iterable[Any],
        device: torch.device,
        seed: int,
        share: Share = WHOLE,
    ) -> None:
        self.batch, self.share, self.device = batch, share, device
        self.height: Any
        self.width: Any
        self.height, self.width = sizes
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.host = random.Random(seed)  # for what the batch shares: the device is not waited for

    def uniform(self, low: float, high: float, count: int | None = None) -> Tensor:
        """(B,) numbers from U(low, high), or (B, count)."""
        whole = self.batch * self.share.of
        shape = (whole,) if count is None else (whole, count)
        drawn = torch.rand(shape, generator=self.generator, device=self.device)
        return low + (high - low) * self.share(drawn)

    def chance(self, p: float) -> Tensor:
        """(B,) booleans, true with probability p."""
        return self.uniform(0, 1) < p

    def box(self, area: tuple[float, float], aspect: tuple[float, float]) -> tuple[Tensor, Tensor]:
        """ATTEMPTS sides in whole pixels for each image, two of (B, ATTEMPTS).

        The product is drawn from U(area) as a share of the image, the quotient log-uniformly.
        """
        pixels = self.uniform(*area, ATTEMPTS) * _column(self.height * self.width)
        quotient = self.uniform(math.log(aspect[0]), math.log(aspect[1]), ATTEMPTS).exp()
        return (pixels * quotient).sqrt().round(), (pixels / quotient).sqrt().round()

    def corner(self, length: Tensor, size: Any) -> Tensor:
        """(B,) whole pixels, uniform over the places in ``size`` where ``length`` (B,) fits."""
        return (self.uniform(0, 1) * (size - length + 1)).floor()


def _column(size: Any) -> Any:
    return size[:, None] if isinstance(size, Tensor) else size


def _first(valid: Tensor, *candidates: tuple[Tensor, Any]) -> list[Tensor]:
    """The first valid of (B, ATTEMPTS) candidates, or what stands beside them: (B,) each."""
    first, found = valid.int().argmax(dim=1, keepdim=True), valid.any(dim=1)
    return [torch.where(found, c.gather(1, first)[:, 0], otherwise) for c, otherwise in candidates]


def _crop_box(draw: _Draw, area: list[float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where no attempt fits, the largest box whose sides are at most 4/3 apart, in the middle."""
    low, high = 3 / 4, 4 / 3
    width, height = draw.box((area[0], area[1]), (low, high))
    across, down = _column(draw.width), _column(draw.height)
    fits = (width >= 1) & (width <= across) & (height >= 1) & (height <= down)
    width, height = _first(
        fits,
        (width, _within(draw.width, draw.height, high)),
        (height, _within(draw.height, draw.width, 1 / low)),
    )
    corners = [
        torch.where(fits.any(dim=1), draw.corner(length, size), ((size - length) / 2).floor())
        for length, size in ((height, draw.height), (width, draw.width))
    ]
    return corners[0], corners[1], height, width


def _within(side: Any, other: Any, ratio: float) -> Any:
    """A side in whole pixels, made shorter where it is more than ``ratio`` times the other."""
    if isinstance(side, Tensor):
        return torch.minimum(side, (other * ratio).round())
    return min(side, round(other * ratio))


def _erase_box(draw: _Draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    height, width = draw.box((0.02, 0.33), (0.3, 3.3))
    inside = (height < draw.height) & (width < draw.width)
    height, width = _first(inside, (height, 0), (width, 0))
    return draw.corner(height, draw.height), draw.corner(width, draw.width), height, width


def _color_jitter(x: Tensor, draw: _Draw, jitter: Jitter) -> Tensor:
    done = draw.chance(jitter.p)
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
            x = adjust(x, torch.where(done, amount, neutral))
    return x
