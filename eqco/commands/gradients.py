"""``eqco theory --parameters``: the mean parameter gradients of the losses against K."""

import sys
from pathlib import Path

import pandas as pd
import torch

from eqco.commands.theory import encoders_of
from eqco.data.packed import read_manifest
from eqco.data.views import Views
from eqco.report import figures
from eqco.runtime.files import write
from eqco.study.methods import METHODS
from eqco.study.study import Study
from eqco.training.gradients import compare

BATCHES = 16
KS = (1, 4, 16, 64)  # and the most that the method can draw, or at most as many as that


def write_gradients(study: Study, data: Path, out: Path, encoder: Path | None) -> str:
    """Write gradients.csv, gradients.md and the figures gradients.svg and gradients.png.

    Args:
        study: the study, whose first cell has the method and τ, and whose recipe is used.
        data: folder of the packed dataset.
        out: folder for the files.
        encoder: a trained encoder of the study's network, shown beside the untrained one.

    Returns:
        The text of gradients.md.

    Raises:
        InputError: if the encoder is of another network.
    """
    cell = study.places[0].cell
    most = METHODS[cell.method].candidates(cell.batch, study.pretrain.queue) or cell.negatives
    ks = [*(k for k in KS if k < most), most]
    parts = []
    for name, model in encoders_of(study, len(read_manifest(data)["mean"]), encoder).items():

        def tell(line: str, name: str = name) -> None:
            print(f"{name}: {line}", file=sys.stderr, flush=True)

        views = Views(
            data,
            study.data,
            study.augment,
            batch=cell.batch,
            views=2,
            epochs=BATCHES,
            seed=0,
            device=torch.device("cpu"),
        )
        views.steps = min(views.steps, BATCHES)
        rows = compare(study, cell, model, views, ks, tell=tell)
        parts.append(pd.DataFrame(rows).assign(encoder=name))
    table = pd.concat(parts)
    table = table[["encoder", *(name for name in table if name != "encoder")]]
    write(out / "gradients.csv", table.to_csv(index=False, float_format="%.4f"))
    text = table.to_markdown(index=False, floatfmt=".3f") + "\n"
    write(out / "gradients.md", text)
    title = f"{study.study}, {cell.method}: α = {study.alpha:g}, τ = {cell.temperature:g}"
    chart = figures.gradients(table, f"{title}; InfoNCE at K = {most} is 1")
    figures.save(chart, out / "gradients")
    return text
