"""The commands that compute: prepare a dataset, train a cell, evaluate it, export its encoder."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from eqco.commands import options
from eqco.commands.options import (
    DataFolder,
    Device,
    EncoderFile,
    Gpus,
    ResultFile,
    StudyFile,
    Threads,
)
from eqco.errors import InputError

# What takes long to import is imported where it is used: torch, torchvision, pandas and matplotlib
# take seconds, eqco.study.study longer than the help of a command.

Format = Literal["torchvision", "timm", "onnx", "pt2"]


def prepare(
    study: StudyFile,
    out: Annotated[Path, typer.Option(help="Folder for the packed dataset, data/<name>")],
) -> None:
    """Pack the study's dataset: one file of uint8 images per split, and a manifest of checksums."""
    from eqco.data import sources

    sources.prepare(options.read(study).data, out)


def pretrain(
    study: StudyFile,
    cell: Annotated[
        str,
        typer.Option(
            help="Path of the cell: method~simo/negatives~16/margin~eqco/seed~0",
            autocompletion=options.cells_of_the_study,
        ),
    ],
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="Folder for encoder.safetensors and pretrain.json")],
    state: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the cell's checkpoints, from which an interrupted run resumes, and "
            "for its finished files, which a second run copies to OUT; default: OUT/state",
        ),
    ] = None,
    expect: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="Refuse to run if the cell's configuration has changed"),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    checkpoint_seconds: Annotated[
        float,
        typer.Option(
            min=0,
            envvar="EQCO_CHECKPOINT_SECONDS",
            help="Minimum seconds between two checkpoints",
        ),
    ] = 300,
    gpus: Gpus = 1,
) -> None:
    """Train the encoder of one cell of the study's grid.

    SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 save a checkpoint and end the run with exit code 75; the
    same command resumes from the checkpoint. A second process on the same cell waits for the first.
    """
    from eqco.runtime.launch import launched

    grid = options.grid(study)
    chosen = grid.find(cell, str(study))
    if expect not in (None, chosen.hash):
        raise InputError(
            f"{study}: has changed since the grid was planned: {cell} is now {chosen.hash}, not "
            f"{expect}; start Snakemake again"
        )
    if launched(gpus):
        return
    from eqco.commands.pretrain import pretrain_cell
    from eqco.runtime.device import claim

    pretrain_cell(
        grid.study,
        chosen,
        data,
        out,
        state or out / "state",
        device=claim(device, threads, gpus),
        checkpoint_seconds=checkpoint_seconds,
    )


def linear_eval(
    study: StudyFile,
    encoder: EncoderFile,
    data: DataFolder,
    out: ResultFile,
    state: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the checkpoints of a probe on augmented views; default: beside OUT"
        ),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    gpus: Gpus = 1,
) -> None:
    """Evaluate a frozen encoder by linear probes: MoCo's SGD, and L-BFGS.

    A probe on augmented views saves checkpoints, stops and resumes as a pretraining does.
    """
    from eqco.runtime.launch import launched

    parsed = options.read(study)
    if launched(gpus):
        return
    from eqco.commands.evaluate import evaluate_linear
    from eqco.runtime.device import claim

    chosen = claim(device, threads, gpus)
    evaluate_linear(parsed, encoder, data, out, state or out.parent / "state", device=chosen)


def knn_eval(
    study: StudyFile,
    encoder: EncoderFile,
    data: DataFolder,
    out: ResultFile,
    device: Device = "auto",
    threads: Threads = None,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs; at most one is used; 0: the CPU")] = 1,
) -> None:
    """Evaluate a frozen encoder by a weighted k-nearest-neighbour vote."""
    from eqco.commands.evaluate import evaluate_knn
    from eqco.runtime.device import claim

    evaluate_knn(options.read(study), encoder, data, out, device=claim(device, threads, gpus))


def export(
    encoder: Annotated[Path, typer.Argument(help="encoder.safetensors of a cell")],
    to: Annotated[Format, typer.Option(help="Weights of torchvision or timm, or a program")],
    out: Annotated[Path, typer.Option(help="File to write")],
    card: Annotated[
        bool, typer.Option("--card", help="Write a model card too, Markdown: OUT.md")
    ] = False,
) -> None:
    """Write the backbone of an encoder for others: torchvision, timm, ONNX, torch.export.

    It is read back, and written only if its features are the encoder's. timm and ONNX need the
    extra of eqco with that name.
    """
    from eqco.commands.export import export as export_backbone

    export_backbone(encoder, to, out, card)
