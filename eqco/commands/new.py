"""A project folder for studies, which runs with the workflow of the installed package."""

from pathlib import Path

import yaml

from eqco.errors import InputError
from eqco.runtime.files import write

PACKAGE = Path(__file__).parents[1]
# hatch_build.py puts parts of the repository there in a wheel; in a clone they stand beside it
ROOT = PACKAGE / "project" if (PACKAGE / "project").exists() else PACKAGE.parent
SNAKEFILE = ROOT / "Snakefile"
COPIED = (
    *("profiles/default/config.yaml", "profiles/slurm/config.yaml"),
    *("params/demo.yaml", "params/schema.json"),
    *("published/accuracies.csv", "published/speeds.csv"),
    *(".dvc/config", ".dvc/plots/against-k.json"),
)
TEMPLATES = {"Snakefile": "Snakefile", "README.md": "README.md", "gitignore": ".gitignore"}
STAGES = """\
# What is trained under DVC: `dvc repro grid@demo`. A study of your own gets a line under `grid`, a
# dataset one under `data`.
"""


def make_project(folder: Path) -> None:
    """Write the files of a project: Snakefile, profiles, a study, its schema, stages of DVC.

    Args:
        folder: a new one, or an empty one, or one that holds a git repository without files.

    Raises:
        InputError: if something is in the folder, or this copy of the package has no workflow.
    """
    if not SNAKEFILE.exists():
        raise InputError(f"{SNAKEFILE}: is missing; install eqco from a wheel or a clone")
    if folder.exists() and (not folder.is_dir() or {*folder.iterdir()} - {folder / ".git"}):
        raise InputError(f"{folder}: is not empty; name a folder that is new or empty")
    for name in COPIED:
        write(folder / name, (ROOT / name).read_bytes())
    for source, name in TEMPLATES.items():
        write(folder / name, (PACKAGE / "template" / source).read_bytes())
    write(folder / ".dvc" / ".gitignore", "/config.local\n/tmp\n/cache\n")
    write(folder / "dvc.yaml", STAGES + _stages())
    (folder / "slurm").symlink_to("profiles/slurm")  # as --profile looks it up


def _stages() -> str:
    """The stages of workflow/dvc.yaml, of the demo alone, for a project's root."""
    stages = yaml.safe_load((ROOT / "workflow" / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    stages["data"]["foreach"] = {"digits": {"study": "demo"}}
    stages["grid"]["foreach"] = {"demo": {"data": "digits"}}
    for stage in stages.values():
        del stage["do"]["wdir"]
    stages["grid"]["do"]["deps"].remove("workflow/rules")  # these are the package's
    return yaml.safe_dump({"stages": stages}, sort_keys=False, width=1000)
