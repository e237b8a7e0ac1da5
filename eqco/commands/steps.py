"""The commands that compute: prepare a dataset, train a cell, evaluate it, export its encoder."""

import math
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

# What takes long to import is imported where it is used: torch, torchvision, pandas and altair
# take seconds, eqco.study.study longer than the help of a command.

Format = Literal["torchvision", "timm", "onnx", "pt2"]
OneGpu = Annotated[int, typer.Option(min=0, help="GPUs; at most one is used; 0: the CPU")]
ProbeState = Annotated[
    Path | None,
    typer.Option(
        help="Folder for the checkpoints of a probe on augmented views; default: beside OUT"
    ),
]


def prepare(
    study: StudyFile,
    out: Annotated[Path, typer.Option(help="Folder for the packed dataset, data/<name>")],
    on: Annotated[
        str | None, typer.Option(metavar="NAME", help="One of evaluate.on in place of the study's")
    ] = None,
) -> None:
    """Pack the study's dataset: one file of uint8 images per split, and a manifest of checksums."""
    from eqco.data import sources
    from eqco.training.cost import check_networks

    parsed = options.read(study)
    try:
        check_networks(parsed)  # before hours of packing, and before the first training
    except InputError as error:
        raise InputError(f"{study}: {error}") from None
    others = {other.name: other for other in parsed.evaluate.on}
    if on not in (None, *others):
        allowed = ", ".join(others) or "none, as evaluate.on is empty"
        raise InputError(f"--on: {on}: allowed: {allowed}")
    sources.prepare(others[on] if on else parsed.data, out)


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
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            envvar="EQCO_TENSORBOARD",
            help="Folder to write each epoch's numbers to for TensorBoard, a run per cell; needs "
            "the extra tensorboard",
        ),
    ] = None,
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
    from eqco.commands.tensorboard import reporter
    from eqco.runtime.device import claim

    pretrain_cell(
        grid.study,
        chosen,
        data,
        out,
        state or out / "state",
        device=claim(device, threads, gpus),
        checkpoint_seconds=checkpoint_seconds,
        report=reporter(tensorboard, cell) if tensorboard else lambda entry: None,
    )


def linear_eval(
    study: StudyFile,
    encoder: EncoderFile,
    data: DataFolder,
    out: ResultFile,
    state: ProbeState = None,
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
    gpus: OneGpu = 1,
) -> None:
    """Evaluate a frozen encoder by a weighted k-nearest-neighbour vote."""
    from eqco.commands.evaluate import evaluate_knn
    from eqco.runtime.device import claim

    evaluate_knn(options.read(study), encoder, data, out, device=claim(device, threads, gpus))


def finetune_eval(
    study: StudyFile,
    encoder: EncoderFile,
    data: DataFolder,
    out: ResultFile,
    state: Annotated[
        Path | None, typer.Option(help="Folder for the checkpoints; default: beside OUT")
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    gpus: OneGpu = 1,
) -> None:
    """Train an encoder on with labels, the whole network, and rate it.

    It saves checkpoints, stops and resumes as a pretraining does.
    """
    from eqco.commands.evaluate import evaluate_finetune
    from eqco.runtime.device import claim

    parsed, chosen = options.read(study), claim(device, threads, gpus)
    evaluate_finetune(parsed, encoder, data, out, state or out.parent / "state", device=chosen)


def transfer_eval(
    study: StudyFile,
    encoder: EncoderFile,
    data: DataFolder,
    out: ResultFile,
    state: ProbeState = None,
    device: Device = "auto",
    threads: Threads = None,
    gpus: Gpus = 1,
) -> None:
    """Evaluate a frozen encoder on the datasets of evaluate.on, which lie beside its own."""
    from eqco.runtime.launch import launched

    parsed = options.read(study)
    if launched(gpus):
        return
    from eqco.commands.evaluate import evaluate_transfer
    from eqco.runtime.device import claim

    chosen = claim(device, threads, gpus)
    evaluate_transfer(parsed, encoder, data, out, state or out.parent / "state", device=chosen)


def evaluate(
    weights: Annotated[
        Path,
        typer.Argument(
            help="Safetensors or torch checkpoint of any backbone, or encoder.safetensors of a cell"
        ),
    ],
    data: DataFolder,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="The network that the weights are of, as a study's network.backbone; "
            "a cell's encoder says it itself"
        ),
    ] = None,
    stem: Annotated[
        Literal["large", "small"], typer.Option(help="Of a ResNet, as a study's network.stem")
    ] = "large",
    protocols: Annotated[
        str | None,
        typer.Option(help="linear-lbfgs,linear,knn or some of them; default: all of the study's"),
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option(
            help="Study file whose evaluate and data say the protocols' settings and the images; "
            "default: the protocols' defaults, all images"
        ),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(help="Begins the weights' names in the file; default: found by the names"),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            help="Mean of each channel, in [0, 1], by which the backbone expects its images to be "
            "normalised: 0.485,0.456,0.406; default: of the dataset's training images"
        ),
    ] = None,
    std: Annotated[str | None, typer.Option(help="Deviation of each channel, as --mean")] = None,
    out: Annotated[Path, typer.Option(help="CSV table that gets a row per protocol")] = Path(
        "evaluations.csv"
    ),
    state: ProbeState = None,
    device: Device = "auto",
    threads: Threads = None,
    gpus: Gpus = 1,
) -> None:
    """Evaluate any backbone's weights by the protocols of the studies, as rows of a table.

    A checkpoint's names may have any prefix, as MoCo's module.encoder_q. A file that holds code is
    refused, without running it.
    """
    from eqco.runtime.launch import launched

    parsed = options.read(study) if study else None
    numbers = {"mean": _numbers("--mean", mean), "std": _numbers("--std", std)}
    if launched(gpus):
        return
    from eqco.commands.weights import Source, evaluate_weights
    from eqco.runtime.device import claim

    evaluate_weights(
        Source(weights, backbone, stem, prefix, **numbers),
        data,
        None if protocols is None else protocols.split(","),
        out,
        state or out.parent / "state",
        parsed,
        device=claim(device, threads, gpus),
    )


def _numbers(option: str, text: str | None) -> list[float] | None:
    """The numbers of an option, a channel each, separated by commas."""
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    low = 0 if option == "--mean" else 1e-6
    if not all(low <= number < math.inf for number in numbers):
        allowed = f"allowed are numbers from {low:g}, separated by commas"
        raise InputError(f"{option}: {text!r}: {allowed}")
    return numbers


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
