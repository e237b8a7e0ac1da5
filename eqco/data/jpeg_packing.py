"""Pack an image folder that is larger than memory: JPEGs in one file per split, resumable.

``jpegs`` describes the files.
"""

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eqco.data import folders
from eqco.errors import InputError
from eqco.runtime.files import canonical, write
from eqco.study.datasets import JpegFolder

QUALITY = 90  # of JPEGs made here; 28 kB for 256 x 341 pixels
CHUNK = 1024  # images between two records
SECONDS_BETWEEN_LINES = 10
HEADER = 1024  # bytes reserved for the file's head, which is written last


@dataclass(frozen=True)
class Split:
    """A packed split, and the statistics of its packing.

    Attributes:
        images: the number of images.
        histogram: counts (3, 256) of the levels of each channel.
        unreadable: paths in the folder of the files that cannot be read as images.
    """

    images: int
    histogram: np.ndarray
    unreadable: list[str]


def pack(spec: JpegFolder, out: Path) -> tuple[dict[str, Split], list[str]]:
    """Write both splits of an image folder into ``out``, each ``<split>.safetensors``.

    A JPEG whose short side is at most ``spec.short_side`` keeps its bytes. Other images are made
    smaller if they are larger, and become JPEGs of quality 90. An interrupted packing resumes after
    the last recorded image: until both splits are complete they are named ``<split>.packing``.

    Returns:
        The splits, and the classes' names.

    Raises:
        InputError: if the folder is not an image folder, or no image of a class can be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    with folders.unpacked(Path(spec.path)) as folder:
        by_class = folders.splits(folder, spec.images_per_class)
        packings = {
            split: _Packing(out / f"{split}.packing", folder, classes, spec.short_side)
            for split, classes in by_class.items()
        }
        for split, packing in packings.items():
            packing.resume(split)
    packed = {name: packing.finish() for name, packing in packings.items()}
    for name, packing in packings.items():
        packing.publish(out / f"{name}.safetensors")
    return packed, list(by_class["train"])


class _Packing:
    """A split that grows: a file of images, an index of three numbers per image, and a record.

    The record says how much of the file and of the index is valid. It is replaced atomically, after
    both are on the disk; a resumed packing cuts off what lies beyond it.
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
            record = json.loads(self.record_file.read_text(encoding="utf-8"))
            same = record["source"] == self.record["source"]
            if same and file.stat().st_size >= record["bytes"]:
                self.record = record
        except (OSError, ValueError, KeyError, TypeError):
            pass  # no record to resume from

    def resume(self, split: str) -> None:
        """Pack the images that are not packed yet."""
        done = self.record["images"]
        if done:
            print(f"{split}: resumes after {done:,} of {len(self.paths):,} images", flush=True)
        start = printed = time.monotonic()
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
                if now - printed > SECONDS_BETWEEN_LINES or packed == len(self.paths):
                    printed, speed = now, (packed - done) / (now - start)
                    remaining_s = (len(self.paths) - packed) / speed
                    print(
                        f"{split}: {packed:,} of {len(self.paths):,} images, "
                        f"{speed:,.0f} images/s, {remaining_s:,.0f} s left",
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
        """Make the file a safetensors file: images, then the index, and the head before them.

        The format is 8 bytes for the head's length, the head, and the tensors' bytes. The head is
        JSON: each tensor's dtype, shape and offsets. safetensors' own writer needs all in memory.
        """
        rows = np.fromfile(self.index, np.int64).reshape(-1, 3)
        labels = np.repeat(
            np.arange(len(self.by_class)), [len(paths) for paths in self.by_class.values()]
        )
        readable = rows[:, 0] > 0
        for label, name in enumerate(self.by_class):
            if not readable[labels == label].any():
                class_folder = self.by_class[name][0].parent
                raise InputError(f"{class_folder}: is a class of which no image can be read")
        rows, labels = rows[readable], labels[readable]
        total = self.record["bytes"]
        padded = total + -total % 8  # so that the int64 after it are aligned
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
            # the format allows spaces after the JSON
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
    """An image as JPEG, its height and width, and its histogram; None if it cannot be read."""
    try:
        content = path.read_bytes()
        with Image.open(BytesIO(content)) as image:
            rgb = image.convert("RGB")
            short = min(rgb.size)
            is_jpeg = image.format == "JPEG" and image.mode in ("L", "RGB")
            if not is_jpeg or short > short_side:
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
