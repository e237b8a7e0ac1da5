"""Pairs per second of the data loader alone, beside other loaders.

A pair is two views of an image: decoded, cropped to 224 pixels, flipped and normalised; with
``--augment moco-v2`` also with jittered colours and blurred. The images are noise with more power
in coarser grains, as in photographs: 500 x 375 pixels, about as many bytes as ImageNet's. Every
loader has ``--threads`` worker processes; its files are in the page cache. The loaders run in turn,
``--n`` times ``--steps`` batches each. Prints one JSON line with the median and the range of pairs
per second, and, ``_cpu_ms``, of the CPU ms of a pair, in all processes from a loader's start to its
end, of:

- ``eqco``: the packed file, of images with a short side of 256; the workers decode and crop, as
  many threads of the main process do the rest, as there is no GPU;
- ``eqco_workers``: the work of the workers alone, crops as uint8: all that a GPU waits for;
- ``torchvision``: ImageFolder and DataLoader with MoCo's transforms, in the workers;
- ``webdataset``: eight shards and a shuffle buffer, with the same transforms;
- ``litdata``: chunks of JPEGs, shuffled, with the same transforms;

the last three on the original images and, ``_256``, on the files that eqco packed.
"""

import os
import random
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from benchmarks._measure import arguments, draw_jpegs, report
from eqco.data import packed as data
from eqco.data import sources
from eqco.data.jpegs import in_workers
from eqco.data.views import Views
from eqco.runtime.malloc import keep_freed_memory
from eqco.study.load import load_study
from eqco.study.recipe import Augment

try:
    import litdata
    import webdataset
except ImportError:
    sys.exit("benchmarks loader: needs two other loaders: pip install webdataset litdata")

WARM = 4  # batches that the workers have prefetched


def main() -> None:
    parser = arguments(__doc__, n=5, threads=2)
    parser.add_argument("--augment", choices=("crops", "moco-v2"), required=True)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as a training does; the workers of every loader inherit it
    batch, cpu = options.batch, torch.device("cpu")
    study = load_study(Path("params/moco-v2-imagenet.yaml"))
    colours = options.augment == "moco-v2"
    augment = study.augment if colours else Augment(crop=[0.2, 1.0], flip=0.5)
    settings: dict[str, Any] = {
        "augment": options.augment,
        "batch": batch,
        "threads": options.threads,
    }
    with tempfile.TemporaryDirectory() as temporary:
        originals, packed, resized = (Path(temporary, name) for name in ("500", "packed", "256"))
        draw_jpegs(originals / "train" / "class", (options.steps + 2 * WARM) * batch)
        draw_jpegs(originals / "test" / "class", 1)
        spec = study.data.model_copy(update={"path": str(originals)})
        sources.prepare(spec, packed)
        unpack(packed, resized / "train" / "class")
        manifest = data.read_manifest(packed)
        pair = Pair(colours, manifest["mean"], manifest["std"])
        once = {"batch": batch, "views": 2, "epochs": 1, "seed": 0, "device": cpu}
        views = partial(Views, packed, spec, augment, **once)
        loaders: dict[str, Callable[[], Iterator[Any]]] = {
            "eqco": lambda: map(v := views(), range(len(v))),
            "eqco_workers": lambda: in_workers(v := views(), range(len(v)), cpu),
        }
        for suffix, folder in (("", originals), ("_256", resized)):
            images = sorted(folder.glob("train/*/*"))
            kilobytes = sum(path.stat().st_size for path in images) / len(images) / 1000
            settings[f"kilobytes{suffix}"] = round(kilobytes)
            for name, loader in peers(images, folder / "peers", pair, options).items():
                loaders[name + suffix] = loader.__iter__
        runs: dict[str, list[float]] = {}
        for _ in range(options.n):
            for name, start_loader in loaders.items():
                before = cpu_seconds()
                batches = start_loader()
                pairs = sum(pairs_of(next(batches)) for _ in range(WARM))
                start = time.perf_counter()
                for _ in range(options.steps):
                    pairs += pairs_of(next(batches))
                rate = options.steps * batch / (time.perf_counter() - start)
                pairs += sum(map(pairs_of, batches))
                del batches  # its workers end, and their seconds count
                runs.setdefault(name, []).append(rate)
                used = 1000 * (cpu_seconds() - before) / pairs
                runs.setdefault(f"{name}_cpu_ms", []).append(used)
    report(settings, runs)


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def pairs_of(batch: Any) -> int:
    """Pairs in a batch: both views' tensors, within other lists or not, or one tensor of both."""
    if isinstance(batch, torch.Tensor):
        return len(batch) // 2
    return len(batch[0]) if isinstance(batch[0], torch.Tensor) else pairs_of(batch[0])


def unpack(packed: Path, out: Path) -> None:
    """Write the packed training images as files."""
    out.mkdir(parents=True)
    tensors = data.load(packed, "train")
    for i, (start, end) in enumerate(pairwise([0, *tensors["ends"].tolist()])):
        (out / f"{i:06}.jpg").write_bytes(tensors["content"][start:end].numpy().data)


class Pair:
    """Two views of an image by torchvision's transforms, as in MoCo's main_moco.py."""

    def __init__(self, colours: bool, mean: list[float], std: list[float]) -> None:
        jitter = transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)
        self.view = transforms.Compose(
            [
                transforms.RandomResizedCrop(224, scale=(0.2, 1.0)),
                transforms.RandomApply([jitter], 0.8 * colours),
                transforms.RandomGrayscale(0.2 * colours),
                transforms.RandomApply([blur], 0.5 * colours),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __call__(self, content: bytes) -> list[torch.Tensor]:
        image = Image.open(BytesIO(content)).convert("RGB")
        return [self.view(image), self.view(image)]


def blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2)))


def peers(
    images: list[Path], out: Path, pair: Pair, options: Namespace
) -> dict[str, Iterable[Any]]:
    """The other loaders, for the same images; their own files are written to ``out``."""
    batch, workers = options.batch, options.threads
    folder = datasets.ImageFolder(str(images[0].parents[1]), pair, loader=read)
    (out / "shards").mkdir(parents=True)
    with webdataset.ShardWriter(f"{out}/shards/%06d.tar", len(images) // 8, verbose=0) as shards:
        for path in images:
            shards.write({"__key__": path.stem, "jpg": read(path)})
    web = webdataset.WebDataset(sorted(map(str, out.glob("shards/*"))), shardshuffle=8)
    web = web.shuffle(1000).to_tuple("jpg").map_tuple(pair)
    # the default sets spawn for the whole process: only eqco's workers would keep freed memory
    how = {"chunk_bytes": "16MB", "num_workers": 1, "start_method": "fork"}
    litdata.optimize(read, images, str(out / "chunks"), **how)
    lit = litdata.StreamingDataset(str(out / "chunks"), shuffle=True, transform=pair)
    return {
        "torchvision": DataLoader(folder, batch, shuffle=True, num_workers=workers),
        "webdataset": webdataset.WebLoader(web, batch_size=batch, num_workers=workers),
        "litdata": litdata.StreamingDataLoader(lit, batch_size=batch, num_workers=workers),
    }


def read(path: str | Path) -> bytes:
    return Path(path).read_bytes()
