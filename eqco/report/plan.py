"""The cost of a study before it runs: cells, time, memory, storage and jobs."""

import csv
from dataclasses import dataclass
from pathlib import Path

import torch

from eqco.methods import build
from eqco.networks.encoder import Encoder
from eqco.store.cells import EVALUATIONS, read_json
from eqco.study.cell import Cell
from eqco.study.datasets import ImageFolder, JpegFolder
from eqco.study.grid import Grid
from eqco.study.methods import METHODS
from eqco.study.study import Study
from eqco.training.cost import estimate, gradient_passes

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
        images: in the training split.
        epochs: of each training.
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
    images: int
    epochs: int
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


def plan(grid: Grid, images: int, results: Path, speeds: Path) -> list[tuple[str, str]]:
    """What a study will take, as lines of a name and a text.

    Args:
        grid: the study's.
        images: in its training split.
        results: the study's folder; its provenance.json holds a speed once cells are trained.
        speeds: CSV file of speeds by backbone and image size.
    """
    study, recipe = grid.study, grid.study.pretrain
    cells = [cell.cell for cell in grid.cells.values()]
    pairs = [recipe.epochs * (images // cell.batch) * cell.batch for cell in cells]
    units = [forward_units(cell.method, recipe.symmetric) for cell in cells]
    work = sum(n * unit for n, unit in zip(pairs, units, strict=True))
    # all that sizes, and the memory of a step, depend on
    keys = [(cell.method, cell.negatives, cell.batch) for cell in cells]
    different = dict(zip(keys, cells, strict=True))
    sizes = {key: _bytes(study, cell) for key, cell in different.items()}
    encoders = sum(sizes[key][0] for key in keys)
    checkpoint = max(size for _, size in sizes.values())
    lines = [
        ("cells", f"{len(cells):,}, each a training and {len(EVALUATIONS)} evaluations"),
        ("pairs", f"{sum(pairs):,}: {images:,} images, {recipe.epochs:,} epochs"),
    ]
    file = results / "provenance.json"
    if file.exists():
        hours = sum(pairs) / read_json(file)["pretrain"]["median_images_per_s"] / 3600
        lines.append(("training", f"{hours:,.1f} hours for one cell after the other, by {file}"))
    probe = study.evaluate.linear
    probing = len(cells) * probe.epochs * images if probe.augment else 0
    known = _known(speeds, study)
    for name, amount in (("training", work), ("probing", probing)):
        sources: dict[str, list[str]] = {}  # of equal hours on equal hardware
        for row in known if amount else []:
            hours = amount / (float(row["pairs_per_s"]) * float(row["forward_units"])) / 3600
            text = f"{hours:,.1f} hours on {row['hardware']}"
            sources.setdefault(text, []).append(row["source"])
        lines += [(name, f"{text}, by {' and '.join(by)}") for text, by in sources.items()]
    if not any(name == "training" for name, _ in lines):
        lines.append(("training", f"hours not known: {speeds} has no speed of such a network"))
    needed = []
    for ranks in GPUS:
        if all(cell.batch % ranks == 0 for cell in different.values()):
            most = max(estimate(study, cell, ranks) for cell in different.values())
            needed.append(f"{most / 1e9:,.1f} GB on each of {ranks}")
    lines.append(("memory", f"a step needs at least {', '.join(needed)} GPUs"))
    if isinstance(study.data, ImageFolder):
        lines.append(("storage", f"{images * 3 * study.data.size**2 / 1e9:,.1f} GB of images"))
    if isinstance(study.data, JpegFolder):
        size = images * BYTES_PER_PIXEL * 4 / 3 * study.data.short_side**2
        lines.append(("storage", f"{size / 1e9:,.0f} GB of JPEGs, about"))
    kept = f"{encoders / 1e9:,.2f} GB of encoders"
    running = f"{2 * checkpoint / 1e6:,.0f} MB of checkpoints for each cell that runs"
    lines.append(("storage", f"{kept}, {running}"))
    jobs = f"{len(cells):,} with --profile slurm, one a cell, and two for data and table"
    return [*lines, ("jobs", jobs)]


def _known(speeds: Path, study: Study) -> list[dict[str, str]]:
    with speeds.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    named = (study.network.backbone, str(study.data.size))
    return [row for row in rows if (row["backbone"], row["size"]) == named]


def _bytes(study: Study, cell: Cell) -> tuple[int, int]:
    """Of a cell's encoder, and of one of its checkpoints."""
    with torch.device("meta"):  # sizes without memory
        encoder = Encoder(study.network, study.data.channels)
        method = build(cell, encoder, study.pretrain)
    momentum = [parameter for parameter in method.parameters() if parameter.requires_grad]
    state = [*method.state_dict().values(), *momentum]
    encoders = 1 + METHODS[cell.method].momentum  # the key encoder is kept too
    return (
        encoders * sum(tensor.nbytes for tensor in encoder.state_dict().values()),
        sum(tensor.nbytes for tensor in state),
    )


def lines(estimate: Estimate) -> list[tuple[str, str]]:
    """An estimate for people: lines of a name and a text."""
    rows = [
        ("cells", f"{estimate.cells:,}, each a training and {len(EVALUATIONS)} evaluations"),
        ("pairs", f"{estimate.pairs:,}: {estimate.images:,} images, {estimate.epochs:,} epochs"),
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
    if isinstance(study.data, ImageFolder):
        return images * 3 * study.data.size**2
    if isinstance(study.data, JpegFolder):
        return images * BYTES_PER_PIXEL * 4 / 3 * study.data.short_side**2
    return None
