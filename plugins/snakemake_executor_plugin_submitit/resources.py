"""A Snakemake job's resources as parameters of submitit."""

import shlex
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

# Snakemake's resource: submitit's parameter. Text goes to sbatch as it is.
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
DEFAULT_RUNTIME = 60  # minutes; submitit wants a limit, to tell its end from a preemption


def parameters(job: JobExecutorInterface) -> dict[str, Any]:
    """What submitit is to ask the cluster for.

    Raises:
        WorkflowError: naming the rule, the resource, its value and what is allowed.
    """
    name = job.groupid if job.is_group() else job.name
    found: dict[str, Any] = {"name": name, "timeout_min": DEFAULT_RUNTIME, "stderr_to_stdout": True}
    for resource, parameter in TEXT.items():
        value = job.resources.get(resource)
        if value not in (None, ""):
            _refuse_if(not str(value).isprintable(), name, resource, value, "one line of text")
            found[parameter] = str(value)
    for resource, parameter in NUMBERS.items():
        value = job.resources.get(resource)
        if value is not None and not (resource == "gpus" and value == 0):
            allowed = "a whole number from 1"
            _refuse_if(not isinstance(value, int) or value < 1, name, resource, value, allowed)
            found[parameter] = value
    memory = job.resources.get("mem_mb")
    if isinstance(memory, int):  # Snakemake's default may still be undecided
        found["mem_gb"] = memory / 1024  # SLURM's M is 2^20 bytes
    if found.get("nodes", 1) > 1:
        # Snakemake runs once, on the first node; what it runs reaches the others by its own srun
        found["slurm_srun_args"] = ["--nodes=1", "--ntasks=1"]
    options: dict[str, Any] = {}
    for option in shlex.split(str(job.resources.get("slurm_extra") or "")):
        key, equals, value = option.partition("=")
        allowed = "sbatch's long options, as in '--exclusive --mail-type=FAIL'"
        _refuse_if(not key.startswith("--"), name, "slurm_extra", option, allowed)
        options[key.removeprefix("--")] = value if equals else True
    if options:
        found["slurm_additional_parameters"] = options
    return found


def _refuse_if(wrong: bool, name: str, resource: str, value: object, allowed: str) -> None:
    if wrong:
        raise WorkflowError(f"{name}: resource {resource}: {value!r}: must be {allowed}")
