"""``python -m eqco``: each step of a study as a command that can be used alone."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eqco.errors import InputError, Interrupted

if TYPE_CHECKING:
    from eqco.study.grid import Grid
    from eqco.study.study import Study

# What takes long to import is imported where it is used: torch, torchvision, pandas and matplotlib
# take seconds, eqco.study.study longer than the help of a command.

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Does contrastive learning need many negatives? A study is a YAML file in params/. "
    "Snakemake runs its whole grid; these commands are its steps.",
)

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
Correction = Literal["holm", "none"]


@app.command()
def prepare(
    study: StudyFile,
    out: Annotated[Path, typer.Option(help="Folder for the packed dataset, data/<name>")],
) -> None:
    """Pack the study's dataset: one file of uint8 images per split, and a manifest of checksums."""
    from eqco.data import sources

    sources.prepare(_read(study).data, out)


@app.command()
def pretrain(
    study: StudyFile,
    cell: Annotated[
        str, typer.Option(help="Path of the cell: method~simo/negatives~16/margin~eqco/seed~0")
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

    grid = _grid(study)
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


@app.command()
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

    parsed = _read(study)
    if launched(gpus):
        return
    from eqco.commands.evaluate import evaluate_linear
    from eqco.runtime.device import claim

    chosen = claim(device, threads, gpus)
    evaluate_linear(parsed, encoder, data, out, state or out.parent / "state", device=chosen)


@app.command()
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

    evaluate_knn(_read(study), encoder, data, out, device=claim(device, threads, gpus))


@app.command()
def table(
    study: StudyFile,
    results: ResultsFolder = None,
    published: PublishedFile = PUBLISHED,
) -> None:
    """Gather a study's cells into table.csv, table.md, metrics.json, negatives.svg and .png.

    Prints summary.md: the mean accuracies by margin and K.
    """
    from eqco.commands.table import write_table

    grid = _grid(study)
    print(write_table(grid, _folder(results, grid.study), published), end="")


@app.command()
def compare(
    study: StudyFile,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="AXIS=VALUE,...",
            help="The reference: margin=0, or negatives=255; default: the study's own comparisons",
        ),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="By this one alone; default: by each")
    ] = None,
    pool: Annotated[
        str, typer.Option(metavar="AXIS,...", help="Axes to average, seed by seed")
    ] = "",
    equivalence: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="Test that a difference is smaller than this"),
    ] = None,
    correct: Annotated[
        Correction, typer.Option(help="Of p, for the comparisons by a protocol")
    ] = "holm",
    results: ResultsFolder = None,
) -> None:
    """Compare each configuration with the one that has other values of the named axes alone.

    Prints the differences, paired by seed, with interval, p and verdict, and writes comparison.csv
    and comparison.md. Without --against the study's own comparisons and claims are computed, and
    written to comparisons.csv, claims.csv and forest.svg, as the table step does.
    """
    from eqco.commands.compare import parse_against, write_comparison, write_own
    from eqco.study.claims import Comparison

    grid = _grid(study)
    folder = _folder(results, grid.study)
    if against is None:
        print(write_own(grid, folder), end="")
        return
    if equivalence is not None and not equivalence > 0:
        raise InputError(f"--equivalence: {equivalence:g}: must be above 0 points")
    comparison = Comparison(
        name=grid.study.study,
        against=parse_against(against),
        pool=list(filter(None, pool.split(","))),
        protocol=protocol,
        equivalence=equivalence,
        correct=correct,
    )
    print(write_comparison(grid, folder, comparison), end="")


@app.command("claims")
def list_claims(
    pages: Annotated[
        list[Path], typer.Argument(help="Markdown pages with the marks to write between")
    ],
    params: Annotated[Path, typer.Option(help="Folder of study files")] = Path("params"),
    results: Annotated[Path, typer.Option(help="Folder of results")] = Path("results"),
) -> None:
    """Write the claims of all studies, with their verdicts, into pages such as results/README.md.

    The column `stated` says whether a claim was in its study file before its first result.
    """
    from eqco.commands.claims import write_claims

    write_claims(params, results, pages)


@app.command()
def select(study: StudyFile, results: ResultsFolder = None) -> None:
    """Select the value of each arm that the study's `select` asks for, by its deciding cells."""
    from eqco.commands.select import write_selection

    grid = _grid(study)
    print(write_selection(grid, _folder(results, grid.study)), end="")


@app.command("cells")
def print_cells(study: StudyFile, results: ResultsFolder = None) -> None:
    """Print the paths of the unfinished cells, one per line, for a loop without Snakemake."""
    from eqco.store.archive import finished
    from eqco.store.selection import needed

    grid = _grid(study)
    folder = _folder(results, grid.study)
    done = finished(grid, folder)
    for path in needed(grid, folder).cells:
        if path not in done:
            print(path)


@app.command()
def keep(study: StudyFile, results: ResultsFolder = None) -> None:
    """Archive the finished cells in cells.jsonl: a small file for git, enough for the tables.

    Without cells/, as in a clone, the tables are made from that file.
    """
    from eqco.store import archive
    from eqco.store.selection import needed

    grid = _grid(study)
    folder = _folder(results, grid.study)
    count = archive.keep(grid, folder)
    print(f"{folder / archive.KEPT}: {count} of {len(needed(grid, folder).cells)} cells")


@app.command()
def report(
    study: StudyFile,
    results: ResultsFolder = None,
    published: PublishedFile = PUBLISHED,
) -> None:
    """Write report.html: one page with a study's charts, table, holes and provenance.

    A missing cell is a hole.
    """
    from eqco.report import page
    from eqco.runtime.files import write

    grid = _grid(study)
    folder = _folder(results, grid.study)
    write(folder / "report.html", page.render(grid, folder, study, published))
    print(folder / "report.html")


@app.command()
def theory(
    study: StudyFile,
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="Folder for theory.csv, theory.md, .svg and .png")],
    encoder: Annotated[
        Path | None,
        typer.Option(help="A trained encoder.safetensors, to show beside random weights"),
    ] = None,
    parameters: Annotated[
        bool, typer.Option("--parameters", help="The gradients of the parameters instead; minutes")
    ] = False,
) -> None:
    """Draw EqCo's two statements against K: the mean gradient and the bound, with and without m.

    With --parameters the mean gradients of the parameters: direction, size and signal-to-noise of
    six losses by K and draw of negatives, in gradients.csv, .md, .svg and .png.
    """
    if parameters:
        from eqco.commands.gradients import write_gradients

        print(write_gradients(_read(study), data, out, encoder), end="")
        return
    from eqco.commands.theory import write_theory

    print(write_theory(_read(study), data, out, encoder), end="")


@app.command()
def plan(
    study: StudyFile,
    images: Annotated[
        int | None, typer.Option(min=1, help="Training images, if the data is not packed yet")
    ] = None,
    speeds: Annotated[Path, typer.Option(help="CSV file of measured and published speeds")] = Path(
        "published", "speeds.csv"
    ),
) -> None:
    """Estimate a study's cost: cells, hours at measured and published speeds, storage, jobs."""
    from eqco.data.packed import MANIFEST, read_manifest
    from eqco.report.plan import estimate, lines

    grid = _grid(study)
    parsed = grid.study
    count, folder = images or parsed.data.images, Path("data", parsed.data.name)
    if count is None and (folder / MANIFEST).exists():
        count = read_manifest(folder)["splits"]["train"]["shape"][0]
    if count is None:
        raise InputError(
            f"{study}: the number of images in {folder} is unknown; give it with --images"
        )
    if parsed.data.train_size(count) < 1:
        to_validate = f"data.validation: {parsed.data.validation}"
        raise InputError(f"{study}: {to_validate}: the data has {count} training images")
    for name, text in lines(estimate(grid, count, _folder(None, parsed), speeds)):
        print(f"{name:8} {text}")


@app.command()
def status(study: StudyFile, results: ResultsFolder = None) -> None:
    """List the cells that run or have failed, count the others, and estimate the time left.

    It reads the study's files alone, so it works on a login node while jobs run elsewhere.
    """
    from rich.console import Console
    from rich.text import Text

    from eqco.report.status import read, time_left

    grid = _grid(study)
    statuses = read(grid, _folder(results, grid.study))
    console = Console(highlight=False, soft_wrap=True)
    styles = {"running": "cyan", "failed": "red"}
    for cell in statuses:
        if cell.state in styles:
            line = f"{cell.state:8} {cell.path}  {cell.detail}"
            console.print(Text(line, style=styles[cell.state]))
    states = [cell.state for cell in statuses]
    counts = ", ".join(f"{states.count(s)} {s}" for s in ("running", "failed", "waiting"))
    console.print(Text(f"{states.count('done')} of {len(statuses)} cells done, {counts}"))
    console.print(Text(time_left(statuses)))


@app.command("schema")
def print_schema() -> None:
    """Print the JSON schema of study files, as in params/schema.json."""
    from eqco.study.load import schema

    print(schema(), end="")


def _read(study: Path) -> "Study":
    from eqco.study.load import load_study

    return load_study(study)


def _grid(study: Path) -> "Grid":
    from eqco.study.grid import Grid

    return Grid(_read(study))


def _folder(results: Path | None, study: "Study") -> Path:
    """The folder of a study's results."""
    return results or Path("results", study.study)


def main() -> None:
    """Run a command. An error of the user's ends in one line, ``eqco: ...``, and exit code 1."""
    try:
        app()
    except InputError as error:
        sys.exit(f"eqco: {error}")
    except Interrupted as error:
        print(error, file=sys.stderr)
        sys.exit(Interrupted.EXIT_CODE)
    except OSError as error:
        sys.exit(f"eqco: {error.filename or 'output'}: {error.strerror or error}")
