"""Each operation against torchvision's functional, image by image, with the same parameters."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import RandomErasing, RandomResizedCrop
from torchvision.transforms.v2 import functional as F

from eqco.data import augmentation as augment
from eqco.data import operations
from eqco.runtime.ranks import Share
from eqco.study.recipe import Augment

B = 24
EVERYTHING = Augment.model_validate(
    {
        "crop": [0.2, 1.0],
        "flip": 0.5,
        "jitter": {"p": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
        "grayscale": 0.2,
        "blur": {"p": 0.5, "kernel": 3},
        "erase": 0.5,
    }
)


def images(channels: int = 3, size: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(B, channels, size, size, generator=torch.Generator().manual_seed(seed))


def values(low: float, high: float, seed: int = 1) -> Tensor:
    return low + (high - low) * torch.rand(B, generator=torch.Generator().manual_seed(seed))


def boxes(size: int, least: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    height, width = (torch.randint(least, size + 1, (B,), generator=generator) for _ in range(2))
    top, left = (
        (torch.rand(B, generator=generator) * (size - side + 1)).long() for side in (height, width)
    )
    return [top, left, height, width]


def each(function, x: Tensor, *parameters: Tensor) -> Tensor:
    """torchvision's functional on every image, with its own parameters."""
    rows = zip(*(p.tolist() for p in parameters), strict=True)
    return torch.stack([function(image, *row) for image, row in zip(x, rows, strict=True)])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "out"), [(32, 32), (28, 28), (8, 8), (40, 24), (16, 48)])
def test_resized_crop(channels, size, out):
    x, box = images(channels, size), boxes(size)
    expected = each(lambda i, t, l, h, w: F.resized_crop(i, t, l, h, w, [out, out]), x, *box)  # noqa: E741
    found = operations.resized_crop(x, *(side.float() for side in box), out)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_horizontal_flip():
    x, flip = images(), values(0, 1) < 0.5
    expected = each(lambda i, f: F.horizontal_flip(i) if f else i, x, flip)
    assert torch.equal(operations.horizontal_flip(x, flip), expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("adjust_brightness", 0, 2),
        ("adjust_contrast", 0, 2),
        ("adjust_saturation", 0, 2),
        ("adjust_hue", -0.5, 0.5),
    ],
)
def test_color(name, low, high, channels):
    x, factor = images(channels), values(low, high)
    expected = each(getattr(F, name), x, factor)
    torch.testing.assert_close(getattr(operations, name)(x, factor), expected, atol=3e-6, rtol=0)


@pytest.mark.parametrize("color", [[0.5, 0.5, 0.5], [0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 1]])
def test_hue_of_pure_colors(color):
    x = torch.tensor(color, dtype=torch.float32)[:, None, None].expand(B, 3, 4, 4)
    shift = values(-0.5, 0.5)
    expected = each(F.adjust_hue, x, shift)
    torch.testing.assert_close(operations.adjust_hue(x, shift), expected, atol=3e-6, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_grayscale(channels):
    x, gray = images(channels), values(0, 1) < 0.5
    expected = each(lambda i, g: F.rgb_to_grayscale(i, channels) if g else i, x, gray)
    torch.testing.assert_close(operations.grayscale(x, gray), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("size", "kernel"), [(32, 3), (32, 23), (8, 3), (12, 11)])
def test_gaussian_blur(size, kernel):
    x, sigma = images(size=size), values(0.1, 2)
    expected = each(lambda i, s: F.gaussian_blur(i, [kernel, kernel], [s, s]), x, sigma)
    torch.testing.assert_close(
        operations.gaussian_blur(x, sigma, kernel), expected, atol=2e-6, rtol=0
    )


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_blur_some_leaves_the_others_as_they_are(share):
    x, sigma, some = images(), values(0.1, 2), values(0, 1) < share
    expected = torch.where(some[:, None, None, None], operations.gaussian_blur(x, sigma, 5), x)
    found = operations.blur_some(x.clone(), some, sigma, 5)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert torch.equal(found[~some], x[~some])


def test_erase():
    x, box = images(), boxes(32, least=0)
    expected = each(lambda i, t, l, h, w: F.erase(i, t, l, h, w, torch.zeros(1)), x, *box)  # noqa: E741
    assert torch.equal(operations.erase(x, *box), expected)


def test_normalise():
    x, mean, std = images(), torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.1])
    expected = F.normalize(x, mean.tolist(), std.tolist())
    torch.testing.assert_close(operations.normalise(x, mean, std), expected)


@pytest.mark.parametrize("size", [(32, 32), (32, 50), (60, 24)])
def test_crop_boxes_are_drawn_as_torchvision_draws_them(size):
    """Same mean and spread of area, aspect and place over 4,000 draws of each."""
    area = [0.2, 1.0]
    ours = augment.crop_boxes(torch.tensor([size]).repeat(4000, 1), area, seed=0)
    torch.manual_seed(0)
    blank = torch.empty(3, *size)
    theirs = torch.tensor(
        [RandomResizedCrop.get_params(blank, area, [3 / 4, 4 / 3]) for _ in range(4000)]
    )
    _same_distribution(ours, theirs, size)


def test_crop_boxes_of_a_batch_of_many_sizes_are_those_of_each_size():
    sizes = torch.tensor([[30, 40], [90, 25], [64, 64], [8, 80]])
    mixed = augment.crop_boxes(sizes, [0.08, 1.0], seed=3)
    for i, size in enumerate(sizes):
        alike = augment.crop_boxes(size.expand(4, 2), [0.08, 1.0], seed=3)
        assert torch.equal(mixed[i], alike[i])


@pytest.mark.parametrize("area", [[0.08, 1.0], [0.9, 1.0]])
def test_crop_boxes_of_long_images_lie_inside(area):
    """Where no attempt fits, as torchvision: the largest box of an aspect between 3/4 and 4/3."""
    sizes = torch.tensor([[10, 200], [200, 10], [7, 7], [1, 1]]).repeat(500, 1)
    top, left, height, width = augment.crop_boxes(sizes, area, seed=0).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= sizes[:, 0]).all()
    assert (left + width <= sizes[:, 1]).all()
    assert (width <= 4 / 3 * height + 1).all()  # whole pixels
    assert (height <= 4 / 3 * width + 1).all()


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_share_of_a_batch_gets_what_the_whole_batch_gets(ranks):
    x, flat = uint8(), (torch.zeros(3), torch.ones(3))
    whole = augment.Augmentation(EVERYTHING, *flat)(x, 5)
    for rank in range(ranks):
        share = Share(rank, ranks)
        views = augment.Augmentation(EVERYTHING, *flat, share)(share(x), 5)
        torch.testing.assert_close(views, share(whole), atol=1e-6, rtol=0)
    sizes = torch.tensor([[30, 40], [90, 25]]).repeat(8, 1)
    boxes = augment.crop_boxes(sizes, [0.2, 1.0], 7)
    assert torch.equal(augment.crop_boxes(share(sizes), [0.2, 1.0], 7, share), share(boxes))


def test_erased_boxes_are_drawn_as_torchvision_draws_them():
    size = 32
    draw = augment._Draw(4000, torch.full((1, 2), size), seed=0)
    ours = torch.stack(augment._erase_box(draw), dim=1)
    torch.manual_seed(0)
    blank = torch.empty(3, size, size)
    theirs = torch.tensor(
        [RandomErasing.get_params(blank, (0.02, 0.33), (0.3, 3.3), [0.0])[:4] for _ in range(4000)]
    ).float()
    _same_distribution(ours, theirs, (size, size))


def _same_distribution(ours: Tensor, theirs: Tensor, size: tuple[int, int]) -> None:
    """Top, left, height, width, area: two-sample Kolmogorov-Smirnov, p > 0.001 for each."""
    from scipy.stats import ks_2samp

    for sample in (ours, theirs):
        assert (sample[:, 2] + sample[:, 0] <= size[0]).all()
        assert (sample[:, 3] + sample[:, 1] <= size[1]).all()
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3, column
    areas = [sample[:, 2] * sample[:, 3] for sample in (ours, theirs)]
    assert ks_2samp(*areas).pvalue > 1e-3


def uint8(channels: int = 3) -> Tensor:
    return (images(channels) * 255).to(torch.uint8)


def view(params: Augment, seed: int, x: Tensor | None = None) -> Tensor:
    x = uint8() if x is None else x
    channels = x.shape[1]
    return augment.Augmentation(params, torch.zeros(channels), torch.ones(channels))(x, seed)


def test_views_are_a_function_of_the_seed():
    assert torch.equal(view(EVERYTHING, 3), view(EVERYTHING, 3))
    assert not torch.equal(view(EVERYTHING, 3), view(EVERYTHING, 4))


def test_views_do_not_depend_on_how_many_are_made_at_once(monkeypatch):
    whole = view(EVERYTHING, 3)
    monkeypatch.setattr(augment, "IN_CACHE", 7 * 3 * 32 * 32)  # B is no multiple of 7
    torch.testing.assert_close(view(EVERYTHING, 3), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("key", ["crop", "flip", "jitter", "grayscale", "blur", "erase"])
def test_every_image_has_its_own_parameters(key):
    """Of many copies of one image, views differ; torchvision's v2 on a batch gives one view."""
    only = Augment.model_validate({key: EVERYTHING.model_dump()[key]})
    copies = uint8()[:1].repeat(64, 1, 1, 1)
    views = view(only, 0, copies)
    different = len({tuple(v.flatten().tolist()) for v in views})
    assert different == 2 if key in ("flip", "grayscale") else different > 20


def test_nothing_asked_for_is_nothing_done():
    assert torch.equal(view(Augment(), 0), uint8().float() / 255)


def test_probabilities_are_met():
    flipped = view(Augment(flip=0.25), 0, uint8()[:1].repeat(4000, 1, 1, 1))
    share = (flipped != flipped[0]).flatten(1).any(1).float().mean().item()
    assert min(share, 1 - share) == pytest.approx(0.25, abs=0.035)  # five standard errors
