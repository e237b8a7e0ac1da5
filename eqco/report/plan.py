"""The cost of a study before it runs: cells, time, memory, storage and jobs."""

import csv
from dataclasses import dataclass
from pathlib import Path

from eqco.store.cells import evaluations, read_json
from eqco.study.datasets import ImageFolder, JpegFolder, ParquetFiles, Torchvision
from eqco.study.grid import Grid
from eqco.study.selection import planned
from eqco.study.study import Study
from eqco.training import cost

GPUS = (1, 2, 4, 8)
BYTES_PER_PIXEL = 0.33  # of a JPEG of quality 90: 28.6 kB for 256 x 341 pixels


@dataclass(frozen=True)
class Hours:
    """The hours of one cell after the other on some hardware, and the sources of that speed."""

    hours: float
    hardware: str
    sources: list[str]


@dataclass(frozen=True)
class Estimate:
    """The cost of a study.

    Args:
        cells: in the grid.
        evaluations: of each cell.
        images: to train on.
        epochs: of each training; several if they are an axis.
        pairs: of views, over all epochs and cells.
        measured: hours of training at the speed of the study's own finished cells, and the file
            that holds that speed; None before the first.
        training: hours of training, by source.
        probing: hours of linear probes on augmented views, by source; empty without such a probe.
        speeds: the file of speeds.
        step_bytes: least memory of a step on each GPU, by the number of GPUs that can share it.
        image_bytes: storage of the packed images; None if the dataset is small.
        approximate: whether ``image_bytes`` is a guess from the size of a typical JPEG.
        encoder_bytes: storage of all cells' encoders.
        checkpoint_bytes: of one checkpoint, the largest of all cells'.
    """

    cells: int
    evaluations: int
    images: int
    epochs: list[int]
    pairs: int
    measured: tuple[float, Path] | None
    training: list[Hours]
    probing: list[Hours]
    speeds: Path
    step_bytes: dict[int, int]
    image_bytes: float | None
    approximate: bool
    encoder_bytes: int
    checkpoint_bytes: int


def estimate(grid: Grid, images: int, results: Path, speeds: Path) -> Estimate:
    """The cost of a study.

    Args:
        grid: the study's grid.
        images: in its training split, those to validate included.
        results: the study's folder; its provenance.json holds a speed once cells are trained.
        speeds: CSV file of speeds by backbone and image size.
    """
    study, cells = grid.study, [one.cell for one in planned(grid).cells.values()]
    probe = study.evaluate.linear
    recipes = [study.of(cell).pretrain for cell in cells]
    train = study.data.train_size(images)
    pairs = [
        recipe.epochs * (train // cell.batch) * cell.batch
        for cell, recipe in zip(cells, recipes, strict=True)
    ]
    units = [
        cost.forward_units(cell.method, recipe.symmetric)
        for cell, recipe in zip(cells, recipes, strict=True)
    ]
    passes = sum(count * unit for count, unit in zip(pairs, units, strict=True))
    probe_passes = len(cells) * probe.epochs * train if probe.augment else 0
    provenance, measured = results / "provenance.json", None
    if provenance.exists():
        images_per_s = read_json(provenance)["pretrain"]["median_images_per_s"]
        measured = (sum(pairs) / images_per_s / 3600, provenance)
    rows = _speeds(speeds, study)
    # all that sizes, and the memory of a step, depend on
    keys = [(cell.method, cell.negatives, cell.batch, cell.settings) for cell in cells]
    different = dict(zip(keys, cells, strict=True))
    sizes = {key: cost.saved_bytes(study, cell) for key, cell in different.items()}
    return Estimate(
        cells=len(cells),
        evaluations=len(evaluations(study.evaluate)),
        images=train,
        epochs=sorted({recipe.epochs for recipe in recipes}),
        pairs=sum(pairs),
        measured=measured,
        training=_hours(passes, rows),
        probing=_hours(probe_passes, rows),
        speeds=speeds,
        step_bytes={
            gpus: max(cost.estimate(study, cell, gpus) for cell in different.values())
            for gpus in GPUS
            if all(cell.batch % gpus == 0 for cell in different.values())
        },
        image_bytes=_image_bytes(study, images),
        approximate=isinstance(study.data, JpegFolder),
        encoder_bytes=sum(sizes[key][0] for key in keys),
        checkpoint_bytes=max(checkpoint for _, checkpoint in sizes.values()),
    )


def lines(estimate: Estimate) -> list[tuple[str, str]]:
    """An estimate for people: lines of a name and a text."""
    epochs = " or ".join(f"{count:,}" for count in estimate.epochs)
    rows = [
        ("cells", f"{estimate.cells:,}, each a training and {estimate.evaluations} evaluations"),
        ("pairs", f"{estimate.pairs:,}: {estimate.images:,} images, {epochs} epochs"),
    ]
    if estimate.measured:
        hours, file = estimate.measured
        rows.append(("training", f"{hours:,.1f} hours for one cell after the other, by {file}"))
    for name, entries in (("training", estimate.training), ("probing", estimate.probing)):
        for entry in entries:
            by = " and ".join(entry.sources)
            rows.append((name, f"{entry.hours:,.1f} hours on {entry.hardware}, by {by}"))
    if not estimate.measured and not estimate.training:
        message = f"hours unknown: {estimate.speeds} has no speed of such a network"
        rows.append(("training", message))
    memory = [
        f"{size / 1e9:,.1f} GB on each of {gpus}" for gpus, size in estimate.step_bytes.items()
    ]
    rows.append(("memory", f"a step needs at least {', '.join(memory)} GPUs"))
    if estimate.image_bytes is not None:
        size = estimate.image_bytes / 1e9
        text = (
            f"about {size:,.0f} GB of JPEGs"
            if estimate.approximate
            else f"{size:,.1f} GB of images"
        )
        rows.append(("storage", text))
    encoders = f"{estimate.encoder_bytes / 1e9:,.2f} GB of encoders"
    checkpoints = f"{2 * estimate.checkpoint_bytes / 1e6:,.0f} MB of checkpoints per running cell"
    rows.append(("storage", f"{encoders}, {checkpoints}"))
    jobs = f"{estimate.cells:,} with --profile slurm, one per cell, and two for data and table"
    return [*rows, ("jobs", jobs)]


def _speeds(file: Path, study: Study) -> list[dict[str, str]]:
    """The rows of a speed file that are of the study's backbone and image size."""
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    network = (study.network.backbone, str(study.data.size))
    return [row for row in rows if (row["backbone"], row["size"]) == network]


def _hours(passes: int, speeds: list[dict[str, str]]) -> list[Hours]:
    """The hours of so many forward passes; speeds that give equal hours are one entry."""
    entries: dict[tuple[str, str], Hours] = {}
    for row in speeds if passes else []:
        hours = passes / (float(row["pairs_per_s"]) * float(row["forward_units"])) / 3600
        same = (f"{hours:,.1f}", row["hardware"])
        entries.setdefault(same, Hours(hours, row["hardware"], [])).sources.append(row["source"])
    return list(entries.values())


def _image_bytes(study: Study, images: int) -> float | None:
    if isinstance(study.data, ImageFolder | ParquetFiles | Torchvision):
        return images * 3 * study.data.size**2
    if isinstance(study.data, JpegFolder):
        return images * BYTES_PER_PIXEL * 4 / 3 * study.data.short_side**2
    return None
