"""Folders kept as JPEG: what is packed, how packing goes on, and what is read back."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import image_folder
from PIL import Image
from safetensors import safe_open
from torchvision.transforms.v2 import functional as F

from eqco.data import jpeg_packing, jpegs, sources
from eqco.data import packed as data
from eqco.errors import InputError
from eqco.study.datasets import JpegFolder


def spec(path: Path, **changes) -> JpegFolder:
    values = {"kind": "jpeg-folder", "name": "x", "path": str(path), "short_side": 40, "size": 32}
    return JpegFolder.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three classes of images of many sizes, some of them no JPEGs of colour."""
    path = image_folder(tmp_path_factory.mktemp("images"), classes=3, train=5, test=2)
    first = path / "train" / "class-00"
    Image.open(first / "0.jpg").convert("CMYK").save(first / "cmyk.jpg")
    Image.open(first / "0.jpg").convert("L").resize((20, 30)).save(first / "gray.jpg")
    Image.open(first / "0.jpg").convert("RGBA").save(first / "alpha.png")
    (first / "a-png.jpg").write_bytes((first / "alpha.png").read_bytes())
    return path


@pytest.fixture(scope="module")
def packed(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "x"
    sources.prepare(spec(folder), out)
    return out


def test_a_packed_folder_alone_is_read_at_the_default_size(packed):
    found = data.section(packed)
    assert (found.kind, found.name, found.images) == ("jpeg-folder", "x", None)
    assert (found.size, found.short_side) == (224, 256)


def contents(tensors: dict[str, torch.Tensor]) -> list[bytes]:
    whole, ends = tensors["content"].numpy(), [0, *tensors["ends"].tolist()]
    return [whole[a:b].tobytes() for a, b in pairwise(ends)]


def test_every_image_is_there_in_its_class(folder, packed):
    manifest = data.read_manifest(packed)
    assert manifest["classes"] == ["class-00", "class-01", "class-02"]
    for split, counts in (("train", [9, 5, 5]), ("test", [2, 2, 2])):
        tensors = data.load(packed, split)
        assert torch.bincount(tensors["labels"]).tolist() == counts
        paths = sorted((folder / split).glob("*/*"))
        for path, content, size in zip(
            paths, contents(tensors), tensors["sizes"].tolist(), strict=True
        ):
            with Image.open(BytesIO(content)) as image, Image.open(path) as source:
                assert image.format == "JPEG"
                assert [image.height, image.width] == size
                short = min(source.size)
                assert min(size) == min(short, 40)
                ours, theirs = size[1] / size[0], source.width / source.height
                assert ours == pytest.approx(theirs, rel=1 / 40)


def test_a_jpeg_that_is_small_enough_keeps_its_bytes(folder, packed):
    paths = sorted((folder / "train").glob("*/*"))
    kept = 0
    for path, content in zip(paths, contents(data.load(packed, "train")), strict=True):
        with Image.open(path) as image:
            small = image.format == "JPEG" and image.mode != "CMYK" and min(image.size) <= 40
        assert (content == path.read_bytes()) == small
        kept += small
    assert 0 < kept < len(paths)


def test_it_is_a_safetensors_file(packed):
    with safe_open(packed / "train.safetensors", "pt") as file:
        assert set(file.keys()) == {"content", "ends", "sizes", "labels"}
        assert int(file.get_tensor("ends")[-1]) <= len(file.get_tensor("content"))
    assert sorted(path.name for path in packed.iterdir()) == [
        "MANIFEST.json",
        "test.safetensors",
        "train.safetensors",
    ]


def test_statistics_are_those_of_the_pixels(packed):
    manifest, images = data.read_manifest(packed), contents(data.load(packed, "train"))
    pixels = np.concatenate(
        [np.asarray(Image.open(BytesIO(b)).convert("RGB")).reshape(-1, 3) for b in images]
    )
    # of what was encoded, not of what JPEG makes of it
    assert manifest["mean"] == pytest.approx(pixels.mean(0) / 255, abs=0.01)
    assert manifest["std"] == pytest.approx(pixels.std(0) / 255, abs=0.01)


def test_crops_are_torchvisions(packed):
    tensors = data.load(packed, "train")
    images = jpegs.Jpegs(tensors, size=32, short_side=40)
    boxes = torch.tensor([[0, 0, 20, 15], [5, 3, 10, 12]])
    for i, content in enumerate(contents(tensors)):
        pil = Image.open(BytesIO(content)).convert("RGB")
        for box, crop in zip(boxes.tolist(), images.crops(i, boxes), strict=True):
            theirs = F.pil_to_tensor(F.resized_crop(pil, *box, [32, 32]))
            difference = (crop.int() - theirs.int()).abs()
            assert difference.float().mean() < 1  # of 255: two decoders, two roundings
            assert difference.max() <= 16


def test_the_centre_is_torchvisions(packed):
    """Resize(40) and CenterCrop(32) of an image whose short side is 40 already."""
    tensors = data.load(packed, "test")
    centres = jpegs.Centres(jpegs.Jpegs(tensors, size=32, short_side=40), batch=4)
    assert [len(centres[part]) for part in range(len(centres))] == [4, 2]
    crops = torch.cat([centres[0], centres[1]])
    compared = 0
    for content, crop in zip(contents(tensors), crops, strict=True):
        pil = Image.open(BytesIO(content)).convert("RGB")
        if min(pil.size) == 40:
            theirs = F.pil_to_tensor(F.center_crop(pil, [32, 32]))
            assert (crop.int() - theirs.int()).abs().float().mean() < 3  # half a pixel beside it
            compared += 1
    assert compared


def test_workers_change_nothing(packed, monkeypatch):
    images = jpegs.Jpegs(data.load(packed, "train"), size=32, short_side=40)
    centres = jpegs.Centres(images, batch=4)
    alone = torch.cat([centres[part] for part in range(len(centres))])
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        made = jpegs.in_workers(centres, range(len(centres)), torch.device("cpu"))
        assert torch.equal(torch.cat(list(made)), alone)


def test_unreadable_images_are_left_out_and_told(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "images")
    broken = tmp_path / "images" / "train" / "class-01"
    (broken / "0.jpg").write_bytes((broken / "0.jpg").read_bytes()[:200])
    (broken / "text.jpg").write_text("no image")
    (broken / "empty.png").touch()
    sources.prepare(spec(tmp_path / "images"), tmp_path / "data")
    names = [f"train/class-01/{name}" for name in ("0.jpg", "empty.png", "text.jpg")]
    assert data.read_manifest(tmp_path / "data")["unreadable"] == {"train": names, "test": []}
    out = capsys.readouterr().out
    assert all(f"{name}: is not a readable image" in out for name in names)
    assert "24 images packed, 3 unreadable" in out
    assert torch.bincount(data.load(tmp_path / "data", "train")["labels"]).tolist() == [9, 4, 5]


def test_a_class_of_which_nothing_can_be_read_is_an_error(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "images")
    for path in (tmp_path / "images" / "test" / "class-02").iterdir():
        path.write_text("no image")
    with pytest.raises(InputError, match="class-02: is a class of which no image can be read"):
        sources.prepare(spec(tmp_path / "images"), tmp_path / "data")
    assert not (tmp_path / "data" / "MANIFEST.json").exists()


def test_the_test_split_may_be_called_val(folder, packed, tmp_path):
    shutil.copytree(folder, tmp_path / "images")
    (tmp_path / "images" / "test").rename(tmp_path / "images" / "val")
    sources.prepare(spec(tmp_path / "images"), tmp_path / "data")
    assert data.read_manifest(tmp_path / "data") == data.read_manifest(packed)


def prepare_until(folder: Path, out: Path, last: int) -> None:
    """Pack in chunks of 4 images, and die in the write of that number."""
    plain, done = os.fsync, 0

    def fsync(file: int) -> None:
        nonlocal done
        done += 1
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)
        plain(file)

    jpeg_packing.CHUNK, os.fsync = 4, fsync
    sys.stdout = (out.parent / "log.txt").open("a")
    sources.prepare(spec(folder), out)


def test_killed_anywhere_it_goes_on(folder, packed, tmp_path):
    """The same file as undisturbed, whichever write it was killed at; what is packed is kept."""
    fork, out, last = multiprocessing.get_context("fork"), tmp_path / "data", 3
    while True:
        process = fork.Process(target=prepare_until, args=(folder, out, last))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        assert not (out / "MANIFEST.json").exists()
        last += 3
    assert data.read_manifest(out) == data.read_manifest(packed)
    assert (tmp_path / "log.txt").read_text().count("resumes after") >= 2


def test_a_changed_folder_is_packed_anew(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "images")
    out = tmp_path / "data"
    packing = jpeg_packing._Packing(
        out / "train.packing", tmp_path, {"a": [tmp_path / "images/train/class-00/0.jpg"]}, 40
    )
    out.mkdir()
    packing.resume("train")
    record = json.loads((out / "train.record").read_text())
    assert record["images"] == 1
    sources.prepare(spec(tmp_path / "images"), out)
    assert len(data.load(out, "train")["labels"]) == 19


def test_progress_is_told(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(jpeg_packing, "SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setattr(jpeg_packing, "CHUNK", 4)
    sources.prepare(spec(folder), tmp_path / "data")
    out = capsys.readouterr().out
    assert "train: 4 of 19 images, " in out
    assert "test: 6 of 6 images, " in out
    assert "s left" in out


def test_reading_takes_the_memory_of_what_is_read(tmp_path):
    """A file of 200 MB: a process that reads a few images of it does not grow by it."""
    path = image_folder(tmp_path / "images", classes=1, train=2, test=1)
    sources.prepare(spec(path), tmp_path / "data")
    tensors = data.load(tmp_path / "data", "train")
    from safetensors.torch import save_file

    filler = torch.zeros(200_000_000, dtype=torch.uint8)
    ends = tensors["ends"].tolist()
    content = torch.cat([tensors["content"][: ends[0]], filler, tensors["content"][ends[0] :]])
    sizes, labels = tensors["sizes"][[0, 0, 1]], tensors["labels"][[0, 0, 1]]
    ends = torch.tensor([ends[0], ends[0] + len(filler), ends[1] + len(filler)])
    large = {"content": content, "ends": ends, "sizes": sizes, "labels": labels}
    save_file(large, tmp_path / "large.safetensors")
    del filler, content, large
    code = (
        "import resource, sys, torch\n"
        "from safetensors.torch import load_file\n"
        "from eqco.data.jpegs import Jpegs\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "box = torch.tensor([[0, 0, 8, 8]])\n"
        "before = peak()\n"
        "images = Jpegs(load_file(sys.argv[1]), 32, 40)\n"
        "images.crops(0, box), images.crops(2, box)\n"
        "print((peak() - before) / 1e6)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "large.safetensors")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) < 100
