# The study, its cells and their paths. Nothing here imports torch: every cluster job parses it.
import os
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake_interface_executor_plugins.settings import DeploymentMethod

from eqco.commands.workflow import load
from eqco.errors import InputError
from eqco.runtime import gpus
from eqco.store.cells import files_of

# `python` in a rule is the one that runs Snakemake, whether its environment is activated or not.
os.environ.update(
    PATH=os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
)

try:
    PLAN = load(
        Path((workflow.configfiles or ["--configfile"])[-1]),
        config,
        root=Path(workflow.basedir),
        main=workflow.is_main_process,
    )
except InputError as error:
    raise WorkflowError(str(error))


workdir: PLAN.folder


# With `--sdm apptainer` every job runs in this image, or what it links to: docs/cluster.md.
IMAGE = PLAN.root / "eqco.sif"
IN_IMAGE = DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method


container: PLAN.from_folder(IMAGE) if IN_IMAGE else None


if IN_IMAGE and workflow.is_main_process:
    if not IMAGE.exists():
        raise WorkflowError(
            f"{IMAGE.name}: is not beside the Snakefile; docs/cluster.md tells how it is built"
        )
    # by itself Apptainer shows a job its working directory alone
    workflow.deployment_settings.apptainer_args += (
        f" --bind {shlex.quote(str(PLAN.root))}"
    )


CELL = PLAN.cell_pattern
CELL_FOLDER = f"cells/{CELL}"


wildcard_constraints:
    **{axis: "[^/~]+" for axis in PLAN.grid.axes},


# On this machine each cell has a GPU of its own; a cluster's scheduler counts its own.
if workflow.nodes is None and not workflow.remote_exec:
    if "gpus" not in workflow.global_resources and (count := gpus.count()):
        workflow.register_resource("gpus", count)


def results_of(cells):
    files = files_of(PLAN.study.evaluate)
    return expand("cells/{cell}/{file}", cell=cells, file=files)


def cells_of_the_table(wildcards):
    if PLAN.study.select:
        checkpoints.select.get()
    return results_of(PLAN.cells_to_run)
