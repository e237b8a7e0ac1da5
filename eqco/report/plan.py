"""What a study will take, before anyone submits it: cells, time, storage, jobs."""

import csv
from pathlib import Path

import torch

from eqco.methods import METHODS
from eqco.networks.encoder import Encoder
from eqco.store.cells import EVALUATIONS, read_json
from eqco.study.grid import cells
from eqco.study.study import Cell, ImageFolder, JpegFolder, Study
from eqco.training.cost import estimate, gradient_passes

GPUS = (1, 2, 4, 8)
BYTES_PER_PIXEL = 0.33  # of a JPEG of quality 90: 28.6 kB for 256 x 341 pixels


def forward_units(method: str, symmetric: bool) -> int:
    """Forward passes of an image that a pair costs, where a backward pass counts as two.

    With momentum a query goes forward and back and its key forward, 4; where both views are both,
    8. Without momentum both views go forward and back, 6.
    """
    keys = 1 + symmetric if METHODS[method].momentum else 0
    return 3 * gradient_passes(method, symmetric) + keys


def plan(study: Study, images: int, results: Path, speeds: Path) -> list[tuple[str, str]]:
    """What a study will take, as lines of a name and a text.

    Args:
        study: the study.
        images: in its training split.
        results: the study's folder, whose provenance holds a speed where cells were trained.
        speeds: CSV file of speeds by backbone and size of image.
    """
    grid, recipe = list(cells(study).values()), study.pretrain
    pairs = [recipe.epochs * (images // cell.batch) * cell.batch for cell in grid]
    units = [forward_units(cell.method, recipe.symmetric) for cell in grid]
    work = sum(n * unit for n, unit in zip(pairs, units, strict=True))
    # all that sizes, and the memory of a step, depend on
    keys = [(cell.method, cell.negatives, cell.batch) for cell in grid]
    different = dict(zip(keys, grid, strict=True))
    sizes = {key: _bytes(study, cell) for key, cell in different.items()}
    encoders = sum(sizes[key][0] for key in keys)
    checkpoint = max(size for _, size in sizes.values())
    lines = [
        ("cells", f"{len(grid):,}, each a training and {len(EVALUATIONS)} evaluations"),
        ("pairs", f"{sum(pairs):,}: {images:,} images, {recipe.epochs:,} epochs"),
    ]
    file = results / "provenance.json"
    if file.exists():
        hours = sum(pairs) / read_json(file)["pretrain"]["median_images_per_s"] / 3600
        lines.append(("training", f"{hours:,.1f} hours for one cell after the other, by {file}"))
    probe = study.evaluate.linear
    probing = len(grid) * probe.epochs * images if probe.augment else 0
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
    jobs = f"{len(grid):,} with --profile slurm, one a cell, and two for data and table"
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
        method = METHODS[cell.method].build(encoder, cell, study.pretrain)
    momentum = [parameter for parameter in method.parameters() if parameter.requires_grad]
    state = [*method.state_dict().values(), *momentum]
    encoders = 1 + METHODS[cell.method].momentum  # the key encoder is kept too
    return (
        encoders * sum(tensor.nbytes for tensor in encoder.state_dict().values()),
        sum(tensor.nbytes for tensor in state),
    )
