"""``python -m eqco``: each step of a study as a command that can be used alone."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from eqco import __version__
from eqco.commands import setup, steps, studies
from eqco.errors import InputError, Interrupted

app = typer.Typer(
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Does contrastive learning need many negatives? A study is a YAML file in params/. "
    "Snakemake runs its whole grid; these commands are its steps.",
)
COMMANDS: tuple[Callable[..., None], ...] = (
    *(steps.prepare, steps.pretrain, steps.linear_eval, steps.knn_eval),
    *(steps.finetune_eval, steps.transfer_eval, steps.evaluate, steps.export),
    *(studies.table, studies.compare, studies.claims, studies.select, studies.cells),
    *(studies.keep, studies.report, studies.theory, studies.plan, studies.status, studies.schema),
    *(setup.doctor, setup.new),
)
for command in COMMANDS:  # in the list of all, the first line whole
    app.command(short_help=(command.__doc__ or "").partition("\n")[0])(command)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"eqco {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version"),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run a command. An error of the user's ends in one line, ``eqco: ...``, and exit code 1."""
    try:
        app(prog_name="eqco")  # for python -m eqco too
    except InputError as error:
        sys.exit(f"eqco: {error}")
    except Interrupted as error:
        print(error, file=sys.stderr)
        sys.exit(Interrupted.EXIT_CODE)
    except OSError as error:
        sys.exit(f"eqco: {error.filename or 'output'}: {error.strerror or error}")
