"""A Snakemake job's resources as parameters of submitit."""

import shlex
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

# Snakemake's resource: submitit's parameter; text is passed to sbatch unchanged
TEXT = {
    "slurm_partition": "slurm_partition",
    "slurm_account": "slurm_account",
    "slurm_qos": "slurm_qos",
    "constraint": "slurm_constraint",
    "gres": "slurm_gres",
}
NUMBERS = {
    "_cores": "cpus_per_task",
    "gpus": "gpus_per_node",
    "nodes": "nodes",
    "runtime": "timeout_min",
}
DEFAULT_RUNTIME = 60  # minutes; submitit needs a limit to distinguish its end from a preemption


def parameters(job: JobExecutorInterface) -> dict[str, Any]:
    """The parameters of submitit for a job's resources.

    Raises:
        WorkflowError: naming the rule, the resource, its value and what is allowed.
    """
    name = job.groupid if job.is_group() else job.name
    values: dict[str, Any] = {
        "name": name,
        "timeout_min": DEFAULT_RUNTIME,
        "stderr_to_stdout": True,
    }
    for resource, parameter in TEXT.items():
        value = job.resources.get(resource)
        if value not in (None, ""):
            _refuse_if(not str(value).isprintable(), name, resource, value, "one line of text")
            values[parameter] = str(value)
    for resource, parameter in NUMBERS.items():
        value = job.resources.get(resource)
        if value is not None and not (resource == "gpus" and value == 0):
            allowed = "a whole number from 1"
            _refuse_if(not isinstance(value, int) or value < 1, name, resource, value, allowed)
            values[parameter] = value
    memory = job.resources.get("mem_mb")
    if isinstance(memory, int):  # Snakemake's default may not be decided yet
        values["mem_gb"] = memory / 1024  # SLURM's M is 2^20 bytes
    # from 22.05 to 23.02 SLURM's srun does not inherit it
    values["slurm_srun_args"] = [f"--cpus-per-task={values.get('cpus_per_task', 1)}"]
    if values.get("nodes", 1) > 1:
        # Snakemake runs once, on the first node; its command reaches the others by srun
        values["slurm_srun_args"] += ["--nodes=1", "--ntasks=1"]
    options: dict[str, Any] = {}
    for option in shlex.split(str(job.resources.get("slurm_extra") or "")):
        key, equals, value = option.partition("=")
        allowed = "sbatch's long options, as in '--exclusive --mail-type=FAIL'"
        _refuse_if(not key.startswith("--"), name, "slurm_extra", option, allowed)
        options[key.removeprefix("--")] = value if equals else True
    if "no-requeue" not in options:
        options["requeue"] = True  # a site's default may be that no job is
    values["slurm_additional_parameters"] = options
    return values


def _refuse_if(wrong: bool, name: str, resource: str, value: object, allowed: str) -> None:
    if wrong:
        raise WorkflowError(f"{name}: resource {resource}: {value!r}: must be {allowed}")
