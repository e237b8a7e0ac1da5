# The study, its cells and where they lie. Nothing here imports torch: every cluster job parses it.
import os
import shlex
import sys
from pathlib import Path

import pandas as pd
import yaml
from snakemake.exceptions import WorkflowError
from snakemake.utils import Paramspace

from eqco.runtime import gpus
from eqco.errors import InputError
from eqco.runtime.files import write
from eqco.study.grid import Grid
from eqco.store.archive import KEPT, stand_ins
from eqco.runtime.files import canonical
from eqco.study.load import load_study, parse_study
from eqco.study.quick import quick

# What the commands run in; see the file.
ENVIRONMENT = "../envs/python.yaml"
# `python` in a rule is the one that runs Snakemake, whether its environment is activated or not.
os.environ.update(
    PATH=os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
)

ROOT = Path(workflow.basedir)
study_file = os.path.relpath((workflow.configfiles or ["--configfile"])[-1])

try:
    STUDY = load_study(Path(study_file))
    values = {key: value for key, value in config.items() if key != "quick"}
    if parse_study(values, study_file) != STUDY:
        raise InputError(
            f"{study_file}: the jobs read this file alone: "
            "write there what --config or another --configfile says"
        )
    if config.get("quick"):
        # a study of its own: its jobs read it from its own folder
        STUDY = quick(STUDY)
        study_file = f"{ROOT}/results/{STUDY.study}/study.yaml"
        if workflow.is_main_process:
            write(Path(study_file), yaml.safe_dump(STUDY.model_dump(mode="json")))
except InputError as error:
    raise WorkflowError(str(error))

GRID = Grid(STUDY)
CELLS = GRID.cells
CONFIG_HASH = {path: cell.hash for path, cell in CELLS.items()}
study_file = os.path.abspath(study_file)


# A study's folder is its working directory: Snakemake's records of a study lie beside its results,
# and travel with them.
workdir: f"{ROOT}/results/{STUDY.study}"


# What was kept (`python -m eqco keep`) of cells without a folder: they need not run for the table.
try:
    STAND_INS = stand_ins(GRID, Path())
except InputError as error:
    raise WorkflowError(f"results/{STUDY.study}/{error}")


# Relative: they are parameters of the jobs, and a project that moved must not make them stale.
STUDY_FILE, DATA, PUBLISHED = (
    os.path.relpath(path)
    for path in (
        study_file,
        f"{ROOT}/data/{STUDY.data.name}",
        f"{ROOT}/published/accuracies.csv",
    )
)

# One column an axis, as text: a path is method~simo/negatives~16/margin~eqco/seed~0.
AXES = pd.DataFrame(
    dict(axis.split("~", 1) for axis in path.split("/")) for path in CELLS
)
CELL = Paramspace(AXES).wildcard_pattern
CELL_FOLDER = f"cells/{CELL}"


def expected_hash(wildcards):
    return CONFIG_HASH[CELL.format(**wildcards)]


wildcard_constraints:
    **{axis: "[^/~]+" for axis in AXES},


# On this machine each cell has a GPU of its own; a cluster's scheduler counts its own.
if workflow.nodes is None and not workflow.remote_exec:
    if "gpus" not in workflow.global_resources and (found := gpus.count()):
        workflow.register_resource("gpus", found)
