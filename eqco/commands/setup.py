"""The commands before a study: check a machine, make a project."""

from pathlib import Path
from typing import Annotated

import typer

# What takes long to import is imported where it is used.

COLORS = {"ok": typer.colors.GREEN, "note": typer.colors.YELLOW, "fix": typer.colors.RED}


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a list of objects, for a report of a bug")
    ] = False,
) -> None:
    """Check whether the demo can run here, and say what to do if it cannot.

    Looks at the environment, the machine and this folder, a line each: `ok`; `note`, which the demo
    runs with; `fix`, which it does not run with. Exit code 1 if there is something to fix.
    """
    import json

    from eqco.commands.doctor import checks

    found = []
    for one in checks():
        found.append(one._asdict())
        if not as_json:
            state = typer.style(f"{one.state:5}", fg=COLORS[one.state])
            typer.echo(f"{state} {one.check:9} {one.text}")
    if as_json:
        print(json.dumps(found, indent=2))
    if any(one["state"] == "fix" for one in found):
        raise typer.Exit(1)


def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder")],
) -> None:
    """Make a project folder for studies of your own, which runs with the installed package.

    It has a Snakefile, profiles, the demo's study, the schema of studies, .gitignore and dvc.yaml.
    """
    from eqco.commands.new import make_project

    make_project(folder)
    print(f"{folder}: a project; there, `snakemake -n` shows what would run")
