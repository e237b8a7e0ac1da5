"""Images kept as JPEG: a folder packed into one file a split, and read a crop at a time.

A split is a safetensors file like those of the other datasets, memory-mapped when it is read:
``content`` (T,) uint8, the images' bytes one after the other; ``ends`` (M,) int64, where each of
them ends; ``sizes`` (M, 2) int64, height and width; ``labels`` (M,) int64.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from eqco.data import folders
from eqco.errors import InputError
from eqco.runtime.files import write
from eqco.study.study import JpegFolder, canonical

QUALITY = 90  # of images that are made smaller; 28 kB for 256 x 341 pixels
CHUNK = 1024  # images from one record to the next
SECONDS_BETWEEN_LINES = 10
HEADER = 1024  # bytes kept free for the file's head, which is known last


@dataclass(frozen=True)
class Split:
    """A packed split: how many images it holds, and what was seen while packing.

    ``histogram`` (3, 256) counts the levels of each channel; ``unreadable`` names the files, from
    the folder on, that are no images.
    """

    images: int
    histogram: np.ndarray
    unreadable: list[str]


def pack(spec: JpegFolder, out: Path) -> tuple[dict[str, Split], list[str]]:
    """Write both splits of an image folder into ``out``, each ``<split>.safetensors``.

    An image whose short side is at most ``spec.short_side`` and that is a JPEG stays as it is, byte
    by byte; others are made smaller and JPEGs of quality 90. Stopped and started again, it goes on
    with the image where it was: until both splits are whole they are ``<split>.packing``.

    Returns:
        The splits, and the classes' names.

    Raises:
        InputError: when the folder is not an image folder, or nothing of a class can be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    with folders.unpacked(Path(spec.path)) as folder:
        by_class = folders.splits(folder, spec.images_per_class)
        packings = {
            split: _Packing(out / f"{split}.packing", folder, classes, spec.short_side)
            for split, classes in by_class.items()
        }
        for split, packing in packings.items():
            packing.go_on(split)
    packed = {name: packing.finish() for name, packing in packings.items()}
    for name, packing in packings.items():
        packing.publish(out / f"{name}.safetensors")
    return packed, list(by_class["train"])


class _Packing:
    """A split that grows: the file, an index of three numbers an image, and the record of both.

    The record is replaced as a whole, after the others are on the disk; what they hold beyond it is
    cut off when the packing goes on.
    """

    def __init__(
        self, file: Path, folder: Path, by_class: dict[str, list[Path]], short_side: int
    ) -> None:
        self.file, self.folder, self.by_class, self.short_side = file, folder, by_class, short_side
        self.index, self.record_file = (file.with_suffix(s) for s in (".index", ".record"))
        self.paths = [path for paths in by_class.values() for path in paths]
        names = [[str(path.relative_to(folder)), path.stat().st_size] for path in self.paths]
        source = canonical([names, short_side, QUALITY])
        self.record: dict[str, Any] = {
            "source": hashlib.sha256(source.encode()).hexdigest(),
            "images": 0,
            "bytes": 0,
            "histogram": np.zeros((3, 256), np.int64).tolist(),
            "unreadable": [],
        }
        try:
            found = json.loads(self.record_file.read_text(encoding="utf-8"))
            if found["source"] == self.record["source"] and file.stat().st_size >= found["bytes"]:
                self.record = found
        except (OSError, ValueError, KeyError, TypeError):
            pass  # a new one

    def go_on(self, split: str) -> None:
        """Pack the images that are not packed yet."""
        done = self.record["images"]
        if done:
            print(f"{split}: goes on after {done:,} of {len(self.paths):,} images", flush=True)
        start = told = time.monotonic()
        with (
            open(self.file, "r+b" if done else "wb") as file,
            open(self.index, "r+b" if done else "wb") as index,
            ThreadPoolExecutor() as pool,
        ):
            file.truncate(HEADER + self.record["bytes"])
            index.truncate(24 * done)
            file.seek(0, os.SEEK_END)
            index.seek(0, os.SEEK_END)
            while self.record["images"] < len(self.paths):
                first = self.record["images"]
                self._pack(self.paths[first : first + CHUNK], file, index, pool)
                now, packed = time.monotonic(), self.record["images"]
                if now - told > SECONDS_BETWEEN_LINES or packed == len(self.paths):
                    told, rate = now, (packed - done) / (now - start)
                    left = (len(self.paths) - packed) / rate
                    print(
                        f"{split}: {packed:,} of {len(self.paths):,} images, "
                        f"{rate:,.0f} images/s, {left:,.0f} s left",
                        flush=True,
                    )

    def _pack(self, paths: list[Path], file: Any, index: Any, pool: ThreadPoolExecutor) -> None:
        histogram = np.array(self.record["histogram"])
        rows = np.zeros((len(paths), 3), np.int64)  # bytes, height, width; zeros are unreadable
        encoded = pool.map(lambda path: _encode(path, self.short_side), paths)
        for row, path, image in zip(rows, paths, encoded, strict=True):
            if image is None:
                self.record["unreadable"].append(str(path.relative_to(self.folder)))
                continue
            content, size, counts = image
            file.write(content)
            row[:] = len(content), *size
            histogram += counts
        index.write(rows.tobytes())
        for written in (file, index):
            written.flush()
            os.fsync(written.fileno())
        self.record["images"] += len(paths)
        self.record["bytes"] += int(rows[:, 0].sum())
        self.record["histogram"] = histogram.tolist()
        write(self.record_file, json.dumps(self.record))

    def finish(self) -> Split:
        """Write the index behind the images and the head before them: a safetensors file."""
        rows = np.fromfile(self.index, np.int64).reshape(-1, 3)
        labels = np.repeat(
            np.arange(len(self.by_class)), [len(paths) for paths in self.by_class.values()]
        )
        readable = rows[:, 0] > 0
        for label, name in enumerate(self.by_class):
            if not readable[labels == label].any():
                where = self.by_class[name][0].parent
                raise InputError(f"{where}: is a class of which no image can be read")
        rows, labels = rows[readable], labels[readable]
        total = self.record["bytes"]
        padded = total + -total % 8  # so that the numbers after it lie on their own size
        tail = {"ends": rows[:, 0].cumsum(), "sizes": rows[:, 1:], "labels": labels}
        head: dict[str, Any] = {
            "content": {"dtype": "U8", "shape": [padded], "data_offsets": [0, padded]}
        }
        end = padded
        with open(self.file, "r+b") as file:
            file.truncate(HEADER + padded)
            file.seek(0, os.SEEK_END)
            for name, array in tail.items():
                file.write(np.ascontiguousarray(array, np.int64).tobytes())
                offsets = [end, end + array.size * 8]
                head[name] = {"dtype": "I64", "shape": list(array.shape), "data_offsets": offsets}
                end = offsets[1]
            file.seek(0)
            # a head may be filled up with spaces
            file.write((HEADER - 8).to_bytes(8, "little"))
            file.write(json.dumps(head).encode().ljust(HEADER - 8))
            file.flush()
            os.fsync(file.fileno())
        histogram = np.array(self.record["histogram"])
        return Split(len(labels), histogram, self.record["unreadable"])

    def publish(self, path: Path) -> None:
        """Give the finished file its name."""
        os.replace(self.file, path)
        self.record_file.unlink()
        self.index.unlink()


def _encode(path: Path, short_side: int) -> tuple[bytes, tuple[int, int], np.ndarray] | None:
    """An image as JPEG, its height and width, and its histogram; None where it cannot be read."""
    try:
        content = path.read_bytes()
        with Image.open(BytesIO(content)) as image:
            rgb = image.convert("RGB")
            short = min(rgb.size)
            kept = image.format == "JPEG" and image.mode in ("L", "RGB") and short <= short_side
            if not kept:
                if short > short_side:
                    width, height = (round(side * short_side / short) for side in rgb.size)
                    rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
                encoded = BytesIO()
                rgb.save(encoded, "JPEG", quality=QUALITY)
                content = encoded.getvalue()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    counts = np.array(rgb.histogram()).reshape(3, 256)
    return content, (rgb.height, rgb.width), counts


def _decode(content: np.ndarray) -> Tensor:
    """(3, H, W) uint8 of a JPEG's bytes."""
    with Image.open(BytesIO(content.data)) as image:
        pixels = np.array(image.convert("RGB"))  # (H, W, 3)
    return torch.from_numpy(pixels).permute(2, 0, 1)


class Jpegs:
    """The images of a packed split.

    Args:
        tensors: the file's, mapped or in memory.
        size: S of the crops.
        short_side: at which the centre crop's share of the image is defined: S / short_side.
    """

    def __init__(self, tensors: dict[str, Tensor], size: int, short_side: int) -> None:
        self.content = tensors["content"].numpy()  # (T,)
        self.ends = tensors["ends"].numpy()  # (M,)
        self.sizes = tensors["sizes"]  # (M, 2), height and width
        self.size = size
        self.share = size / short_side

    def __len__(self) -> int:
        return len(self.ends)

    def crops(self, i: int, boxes: Tensor) -> Tensor:
        """Boxes (V, 4), top, left, height, width in pixels, of image i as (V, 3, S, S) uint8."""
        start = int(self.ends[i - 1]) if i else 0
        image = _decode(self.content[start : int(self.ends[i])])[None]  # (1, 3, H, W)
        size = (self.size, self.size)
        # what torchvision's resized_crop comes to, without its import of a second
        cropped = [
            interpolate(image[..., y : y + h, x : x + w], size, mode="bilinear", antialias=True)
            for y, x, h, w in boxes.tolist()
        ]
        return torch.cat(cropped)

    def centres(self, images: Tensor | slice = slice(None)) -> Tensor:
        """The box (M, 4) of images that is evaluated: as MoCo's the inner 224 of 256 pixels."""
        sizes = self.sizes[images]  # (M, 2)
        side = (sizes.amin(dim=1) * self.share).round().long()  # (M,)
        corner = (sizes - side[:, None]) // 2  # (M, 2)
        return torch.cat([corner, side[:, None], side[:, None]], dim=1)


class Centres:
    """The centres of a split's images, ``batch`` at a time: items (B, 3, S, S) uint8."""

    def __init__(self, images: Jpegs, batch: int) -> None:
        self.images, self.batch = images, batch
        self.boxes = images.centres()

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch)

    def __getitem__(self, part: int) -> Tensor:
        some = range(len(self.images))[part * self.batch :][: self.batch]
        return torch.cat([self.images.crops(i, self.boxes[i : i + 1]) for i in some])


def in_workers(items: Any, order: range, device: torch.device) -> Iterator[Tensor]:
    """Items (tensors) in an order, made ahead by as many processes as this one has threads."""
    loader = DataLoader(
        items,
        batch_size=None,
        sampler=order,
        num_workers=torch.get_num_threads(),
        multiprocessing_context="fork",  # they share the memory map, and copy nothing
        pin_memory=device.type == "cuda",
    )
    return iter(loader)
