"""The commands on a study as a whole: its tables, comparisons, plan and state."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from eqco.commands import options
from eqco.commands.options import PUBLISHED, DataFolder, PublishedFile, ResultsFolder, StudyFile
from eqco.errors import InputError

# What takes long to import is imported where it is used: torch, torchvision, pandas and altair
# take seconds, eqco.study.study longer than the help of a command.

Correction = Literal["holm", "none"]
Watch = Annotated[
    bool, typer.Option("--watch", help="Repeat it until every cell has ended, or until Ctrl-C")
]
SECONDS_BETWEEN_LINES, SECONDS_BETWEEN_PAGES = 2, 10


def table(
    study: StudyFile,
    results: ResultsFolder = None,
    published: PublishedFile = PUBLISHED,
    latex: Annotated[
        Path | None,
        typer.Option(help="Also write the mean accuracies as LaTeX tables to this file"),
    ] = None,
) -> None:
    """Gather a study's cells into table.csv, table.md, metrics.json, negatives.svg and .png.

    Prints summary.md: the mean accuracies by margin and K.
    """
    from eqco.commands.table import write_table

    grid = options.grid(study)
    folder = options.folder(results, grid.study)
    print(write_table(grid, folder, published, latex), end="")


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

    grid = options.grid(study)
    folder = options.folder(results, grid.study)
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


def claims(
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


def select(study: StudyFile, results: ResultsFolder = None) -> None:
    """Select the value of each arm that the study's `select` asks for, by its deciding cells."""
    from eqco.commands.select import write_selection

    grid = options.grid(study)
    print(write_selection(grid, options.folder(results, grid.study)), end="")


def cells(study: StudyFile, results: ResultsFolder = None) -> None:
    """Print the paths of the unfinished cells, one per line, for a loop without Snakemake."""
    from eqco.store.archive import finished
    from eqco.store.selection import needed

    grid = options.grid(study)
    folder = options.folder(results, grid.study)
    done = finished(grid, folder)
    for path in needed(grid, folder).cells:
        if path not in done:
            print(path)


def keep(study: StudyFile, results: ResultsFolder = None) -> None:
    """Archive the finished cells in cells.jsonl: a small file for git, enough for the tables.

    Without cells/, as in a clone, the tables are made from that file.
    """
    from eqco.store import archive
    from eqco.store.selection import needed

    grid = options.grid(study)
    folder = options.folder(results, grid.study)
    count = archive.keep(grid, folder)
    print(f"{folder / archive.KEPT}: {count} of {len(needed(grid, folder).cells)} cells")


def report(
    study: StudyFile,
    results: ResultsFolder = None,
    published: PublishedFile = PUBLISHED,
    watch: Watch = False,
) -> None:
    """Write report.html: one page with a study's charts, table, holes and provenance.

    A missing cell is a hole; one that trains has its curves so far. With --watch the page is
    written again whenever an epoch or a cell has ended: reload it in the browser.
    """
    from eqco.report import page
    from eqco.report.status import read, unfinished
    from eqco.report.watch import watch as watched
    from eqco.runtime.files import write

    grid = options.grid(study)
    folder = options.folder(results, grid.study)
    written = ""

    def draw() -> bool:
        nonlocal written
        left = watch and unfinished(read(grid, folder))  # first: what ends now is drawn next time
        text = page.render(grid, folder, study, published)
        if text != written:
            write(folder / "report.html", text)
        written = text
        return left

    watched(draw, SECONDS_BETWEEN_PAGES)
    print(folder / "report.html")


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

        print(write_gradients(options.read(study), data, out, encoder), end="")
        return
    from eqco.commands.theory import write_theory

    print(write_theory(options.read(study), data, out, encoder), end="")


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

    grid = options.grid(study)
    parsed = grid.study
    count, folder = images or parsed.data.images, Path("data", parsed.data.name)
    if count is None and (folder / MANIFEST).exists():
        count = read_manifest(folder)["splits"][parsed.data.pretrained_on]["shape"][0]
    if count is None:
        raise InputError(
            f"{study}: the number of images in {folder} is unknown; give it with --images"
        )
    if parsed.data.train_size(count) < 1:
        to_validate = f"data.validation: {parsed.data.validation}"
        raise InputError(f"{study}: {to_validate}: the data has {count} training images")
    for name, text in lines(estimate(grid, count, options.folder(None, parsed), speeds)):
        print(f"{name:8} {text}")


def status(study: StudyFile, results: ResultsFolder = None, watch: Watch = False) -> None:
    """List the cells that run or have failed, count the others, and estimate the time left.

    It reads the study's files alone, so it works on a login node while jobs run elsewhere.
    """
    from rich.console import Console
    from rich.live import Live

    from eqco.report.status import read, shown, unfinished
    from eqco.report.watch import watch as watched

    grid = options.grid(study)
    folder = options.folder(results, grid.study)
    console = Console(highlight=False, soft_wrap=True)
    if not watch:
        console.print(shown(read(grid, folder)))
        return
    with Live(console=console, auto_refresh=False) as live:

        def draw() -> bool:
            statuses = read(grid, folder)
            live.update(shown(statuses), refresh=True)
            return unfinished(statuses)

        watched(draw, SECONDS_BETWEEN_LINES)


def schema() -> None:
    """Print the JSON schema of study files, as in params/schema.json."""
    from eqco.study import load

    print(load.schema(), end="")
