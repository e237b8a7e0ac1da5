"""Views of JPEGs and of arrays: a function of the seed and the step, whoever makes them."""

from pathlib import Path

import psutil
import pytest
import torch
from helpers import image_folder
from torchvision.transforms.v2 import functional as F

from eqco.data import packed as data
from eqco.data import sources
from eqco.data.augmentation import crop_boxes
from eqco.data.jpegs import Jpegs
from eqco.data.views import Views
from eqco.errors import InputError
from eqco.runtime.ranks import Share
from eqco.runtime.seeds import draw_seed
from eqco.study.datasets import JpegFolder
from eqco.study.recipe import Augment

CPU = torch.device("cpu")
PARAMS = Augment(crop=[0.2, 1.0], flip=0.5, grayscale=0.2)
SPEC = JpegFolder(kind="jpeg-folder", name="x", path="", short_side=40, size=32)


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    folder = image_folder(tmp_path_factory.mktemp("images"), classes=3, train=7, test=1)
    out = tmp_path_factory.mktemp("data") / "x"
    sources.prepare(SPEC.model_copy(update={"path": str(folder)}), out)
    return out


def views(packed: Path, params: Augment = PARAMS, **changes) -> Views:
    settings = {"batch": 8, "views": 2, "epochs": 3, "seed": 5, "device": CPU, **changes}
    return Views(packed, SPEC, params, **settings)


def test_views_are_the_same_wherever_one_begins(packed):
    through = views(packed)
    assert through.steps == 6
    assert through.steps_per_epoch == 2
    made = [through(step) for step in range(6)]
    for begin in (5, 2, 3):
        again = views(packed)
        for step in range(begin, 6):
            for one, other in zip(again(step), made[step], strict=True):
                assert one.shape == (8, 3, 32, 32)
                assert torch.equal(one, other)
    assert not torch.equal(made[0][0], made[0][1])
    assert not torch.equal(made[0][0], made[2][0])
    assert not torch.equal(views(packed, seed=6)(0)[0], made[0][0])


def test_workers_end_with_their_views(packed):
    def workers() -> set[psutil.Process]:
        return set(psutil.Process().children())

    before = workers()
    source = views(packed)
    source(0)
    first = workers() - before
    source(3)
    assert len(workers() - before) == len(first) > 0
    assert not any(worker.is_running() for worker in first)
    del source
    assert not workers() - before


def test_every_image_comes_once_an_epoch(packed):
    source = views(packed, batch=7)
    for epoch in range(3):
        visits = torch.cat([source.visit(3 * epoch + i) for i in range(3)])
        assert sorted(visits.tolist()) == list(range(21))


def test_a_crop_is_torchvisions_of_the_drawn_box(packed):
    source = views(packed, Augment(crop=[0.2, 1.0]))
    made = source(3)
    images = Jpegs(data.load(packed, "train"), size=32, short_side=40)
    visit = source.visit(3)
    boxes = crop_boxes(images.sizes[visit].repeat(2, 1), [0.2, 1.0], draw_seed(5, "crops", 3))
    manifest = data.read_manifest(packed)
    for i, box in enumerate(boxes.tolist()):
        start = [0, *images.ends.tolist()][visit[i % 8]]
        whole = images.content[start : images.ends[visit[i % 8]]]
        from io import BytesIO

        from PIL import Image

        pil = Image.open(BytesIO(whole)).convert("RGB")
        crop = F.pil_to_tensor(F.resized_crop(pil, *box, [32, 32])).float() / 255
        expected = F.normalize(crop, manifest["mean"], manifest["std"])
        torch.testing.assert_close(made[i // 8][i % 8], expected, atol=0.06, rtol=0)


def test_without_a_crop_the_centre_is_taken(packed):
    made = views(packed, Augment())(0)
    assert torch.equal(made[0], made[1])


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_ranks_shares_make_the_batch(packed, monkeypatch, ranks):
    expected = views(packed)(1)
    for rank in range(ranks):
        monkeypatch.setattr("eqco.data.views.share", lambda rank=rank: Share(rank, ranks))
        for view, whole in zip(views(packed)(1), expected, strict=True):
            torch.testing.assert_close(view, whole[rank::ranks], atol=1e-6, rtol=0)


def test_the_last_step_is_the_last(packed):
    source = views(packed)
    source(5)
    with pytest.raises(StopIteration):
        source(6)


def test_a_batch_larger_than_the_data_is_refused(packed):
    with pytest.raises(InputError, match=r"pretrain.batch: 22: .* has 21 training images"):
        views(packed, batch=22)
    with pytest.raises(InputError, match=r"evaluate.linear.batch: 22: .* has 21 training images"):
        views(packed, batch=22, batch_key="evaluate.linear.batch")
