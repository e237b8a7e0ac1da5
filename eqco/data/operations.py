"""Operations on a batch of images, each with its own parameters for every image.

Each operation takes its parameters as tensors of B values. It equals torchvision's functional of
the same name on each image, as tests/data/test_augment.py shows. Images are float (B, C, H, W) in
[0, 1].

Crop, resize and blur are linear along each axis. Each is two matrix products,
``rows @ image @ columnsᵀ``, with small matrices made for every image. The colours of a pixel depend
on each other, so the colour operations work on planes (B, H, W).
"""

import torch
from torch import Tensor
from torch.nn.functional import pad


def _separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply (B, h, H) along the height and (B, w, W) along the width: (B, C, h, w)."""
    b, c, height, width = x.shape
    # all channels in one product each: (B, h, H) @ (B, H, C W), then (B, h C, W) @ (B, W, w)
    y = rows @ x.transpose(1, 2).reshape(b, height, c * width)
    y = y.view(b, rows.shape[1] * c, width) @ columns.transpose(1, 2)
    return y.view(b, rows.shape[1], c, y.shape[2]).transpose(1, 2).contiguous()


def _resample(start: Tensor, length: Tensor, size: int, out: int) -> Tensor:
    """Matrices (B, out, size) that resize [start, start + length) of ``size`` pixels to ``out``.

    Bilinear with antialiasing: when shrinking, the triangle is as wide as the step between outputs.
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
    """Mirror the images whose ``flip`` (B,) is true."""
    return choose(flip, x.flip(3), x)


def choose(condition: Tensor, x: Tensor, otherwise: Tensor) -> Tensor:
    """Take the images of x if ``condition`` (B,) is true, else of ``otherwise``."""
    # exact, and several times as fast on a CPU as torch.where, which branches per element
    return torch.lerp(otherwise, x, condition[:, None, None, None].to(x.dtype))


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    factor = factor[:, None, None, None]
    return (factor * x).add_((1 - factor) * other).clamp_(0, 1)


def rgb_to_grayscale(x: Tensor) -> Tensor:
    """Luminance (B, 1, H, W) by ITU-R 601; grey images are returned unchanged."""
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
    """Blend with the luminance; ``factor`` (B,) ≥ 0, 1 changes nothing. Grey images stay."""
    return x if x.shape[1] == 1 else _blend(x, rgb_to_grayscale(x), factor)


def adjust_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Rotate the HSV hue by ``shift`` (B,) turns in [-0.5, 0.5], without branches.

    Grey images stay.
    """
    if x.shape[1] == 1:
        return x
    r, g, b = x.unbind(dim=1)  # (B, H, W) each
    value = torch.maximum(torch.maximum(r, g), b)
    least = torch.minimum(torch.minimum(r, g), b)
    chroma = value - least
    scale = chroma.clamp(min=torch.finfo(x.dtype).tiny).reciprocal_()
    # the hue in sixths of a turn; the formula depends on which channel is the largest
    sextant = torch.lerp(
        (r - g).mul_(scale).add_(4), (b - r).mul_(scale).add_(2), _is_zero(value - g)
    )
    sextant.lerp_((g - b).mul_(scale), _is_zero(value - r))
    sextant.add_(6 * shift[:, None, None])
    sextant.sub_((sextant / 6).floor_(), alpha=6)  # in [0, 6]
    turned = torch.empty_like(x)
    # each channel is a trapezoid over the hue, centred on its own colour: 0, 2 and 4 sixths
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
    """1 if x ≥ 0 is 0, else 0: in floats, which a CPU computes faster than booleans."""
    return (x * -1e30).add_(1).clamp_(min=0)


def grayscale(x: Tensor, gray: Tensor) -> Tensor:
    """Replace the images whose ``gray`` (B,) is true by their luminance, in every channel."""
    return choose(gray, rgb_to_grayscale(x), x)


def _smooth(sigma: Tensor, size: int, kernel: int) -> Tensor:
    """A Gaussian of ``kernel`` taps, as matrices (B, size, size + kernel - 1)."""
    distance = torch.arange(kernel, device=sigma.device) - kernel // 2
    taps = torch.exp(-0.5 * (distance / sigma[:, None]) ** 2)  # (B, kernel)
    taps = pad(taps / taps.sum(dim=1, keepdim=True), (size - 1, size - 1))
    # each row is the taps, one place further than in the row above
    return taps.unfold(1, size + kernel - 1, 1).flip(1)


def gaussian_blur(x: Tensor, sigma: Tensor, kernel: int) -> Tensor:
    """Blur with ``sigma`` (B,) pixels and ``kernel`` taps (odd, under twice the image's side)."""
    rows = _smooth(sigma, x.shape[2], kernel)
    columns = rows if x.shape[2] == x.shape[3] else _smooth(sigma, x.shape[3], kernel)
    return _separable(pad(x, [kernel // 2] * 4, mode="reflect"), rows, columns)


def blur_some(x: Tensor, some: Tensor, sigma: Tensor, kernel: int) -> Tensor:
    """Blur the images whose ``some`` (B,) is true."""
    if x.is_cuda:  # which would wait to know how many they are
        return choose(some, gaussian_blur(x, sigma, kernel), x)
    x[some] = gaussian_blur(x[some], sigma[some], kernel)
    return x


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
