"""Arguments and options that commands share, and what they name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eqco.errors import InputError

if TYPE_CHECKING:
    from eqco.study.grid import Grid
    from eqco.study.study import Study

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="Study file, params/<study>.yaml")]
DataFolder = Annotated[Path, typer.Option("--data", help="Folder of the packed dataset")]
EncoderFile = Annotated[Path, typer.Option("--encoder", help="encoder.safetensors of the cell")]
ResultsFolder = Annotated[
    Path | None, typer.Option(help="Folder that holds cells/; default: results/<study>")
]
ResultFile = Annotated[Path, typer.Option("--out", help="JSON file to write the accuracies to")]
Device = Annotated[
    str,
    typer.Option(
        envvar="EQCO_DEVICE",
        help="cpu, cuda, cuda:1 …; auto: a GPU that no other cell uses, else the CPU",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="CPU threads per node, shared by its ranks; results depend on it"),
]
Gpus = Annotated[
    int,
    typer.Option(
        min=0,
        help="GPUs per node; 0: the CPU. More than one start a process per GPU, by torchrun, or by "
        "srun in a job of several nodes",
    ),
]
PublishedFile = Annotated[Path, typer.Option(help="CSV file of published numbers")]
PUBLISHED = Path("published", "accuracies.csv")


def read(study: Path) -> "Study":
    """The study of a file."""
    from eqco.study.load import load_study

    return load_study(study)


def grid(study: Path) -> "Grid":
    """The grid of a study file."""
    from eqco.study.grid import Grid

    return Grid(read(study))


def folder(results: Path | None, study: "Study") -> Path:
    """The folder of a study's results."""
    return results or Path("results", study.study)


def cells_of_the_study(context: typer.Context, incomplete: str) -> list[str]:
    """The cells that a shell offers for ``--cell``, of the study file given before it.

    None without a file, or if the file is wrong: a shell shows no message while it completes.
    """
    # an option at the end without its value stops the parsing: the arguments so far are in `args`
    study = context.params.get("study") or next(map(Path, context.args), None)
    try:
        return [path for path in grid(study).cells if path.startswith(incomplete)] if study else []
    except (InputError, OSError):
        return []
