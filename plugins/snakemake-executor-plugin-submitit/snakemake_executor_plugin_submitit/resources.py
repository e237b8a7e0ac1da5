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
    "cpus_per_task": "cpus_per_task",
    "cpus_per_gpu": "slurm_cpus_per_gpu",
    "gpus": "gpus_per_node",
    "nodes": "nodes",
    "runtime": "timeout_min",
}
# Names that other executors and Snakemake's own documentation have for the same
SYNONYMS = {"gpu": "gpus", "qos": "slurm_qos"}
# Of other executors: a job without them would not be what its rule asks for
UNKNOWN = ("clusters", "mpi", "slurm_cluster", "tasks", "tasks_per_gpu", "tasks_per_node")
# sbatch's options that would take the job out of the executor's sight
FORBIDDEN = (
    *("array", "clusters", "error", "export", "input", "job-name", "open-mode", "output"),
    *("parsable", "signal", "test-only", "wait", "wrap"),
)
DEFAULT_RUNTIME = 60  # minutes; submitit needs a limit to distinguish its end from a preemption


def parameters(job: JobExecutorInterface, signal_seconds: int) -> dict[str, Any]:
    """The parameters of submitit for a job's resources.

    Args:
        job: the job.
        signal_seconds: before its time limit, when it is told to save its state.

    Raises:
        WorkflowError: naming the rule, the resource, its value and what is allowed.
    """
    name = job.groupid if job.is_group() else job.name
    resources = _resources(job, name)
    values: dict[str, Any] = {
        "name": name,
        "timeout_min": DEFAULT_RUNTIME,
        "stderr_to_stdout": True,
        "slurm_wckey": "",  # submitit's own would be refused where such keys are checked
    }
    for resource, parameter in TEXT.items():
        value = resources.get(resource)
        if value not in (None, ""):
            _refuse_if(not str(value).isprintable(), name, resource, value, "one line of text")
            values[parameter] = str(value)
    for resource, parameter in NUMBERS.items():
        value = resources.get(resource)
        if value is not None and not (resource == "gpus" and value == 0):
            _refuse_if(not _is_count(value), name, resource, value, "a whole number from 1")
            values[parameter] = value
    minutes = values["timeout_min"]
    longer = f"longer than --submitit-signal-seconds, {signal_seconds} s: it would never start"
    _refuse_if(60 * minutes <= signal_seconds, name, "runtime", minutes, longer)
    if model := resources.get("gpu_model"):
        wrong = "gpus_per_node" not in values
        _refuse_if(wrong, name, "gpu_model", model, "given with gpus")
        values["slurm_gpus_per_node"] = f"{model}:{values['gpus_per_node']}"
    values |= _memory(resources, name)
    # from 22.05 to 23.02 SLURM's srun does not inherit it
    values["slurm_srun_args"] = [f"--cpus-per-task={values.get('cpus_per_task', 1)}"]
    if values.get("nodes", 1) > 1:
        # Snakemake runs once, on the first node; its command reaches the others by srun
        values["slurm_srun_args"] += ["--nodes=1", "--ntasks=1"]
    values["slurm_additional_parameters"] = _options(resources, name)
    return values


def _resources(job: JobExecutorInterface, name: str) -> dict[str, Any]:
    """The resources by the names that are known here."""
    resources = dict(job.resources.items())
    for resource in UNKNOWN:
        if (value := resources.get(resource)) is not None:
            _refuse_if(True, name, resource, value, "left out: it has no meaning here")
    for synonym, resource in SYNONYMS.items():
        if (value := resources.get(synonym)) is not None:
            both = resources.get(resource) not in (None, value)
            _refuse_if(both, name, synonym, value, f"equal to {resource}, which is given, too")
            resources[resource] = value
    return resources


def _memory(resources: dict[str, Any], name: str) -> dict[str, Any]:
    per_cpu = resources.get("mem_mb_per_cpu")
    if per_cpu is not None:
        _refuse_if(not _is_count(per_cpu), name, "mem_mb_per_cpu", per_cpu, "a whole number from 1")
        return {"slurm_mem_per_cpu": f"{per_cpu}M"}
    memory = resources.get("mem_mb")  # Snakemake's default may not be decided yet
    return {"mem_gb": memory / 1024} if isinstance(memory, int) else {}  # SLURM's M is 2^20 bytes


def _options(resources: dict[str, Any], name: str) -> dict[str, Any]:
    """Options of sbatch that ``slurm_extra`` and the rest ask for."""
    options: dict[str, Any] = {}
    for option in shlex.split(str(resources.get("slurm_extra") or "")):
        key, equals, value = option.partition("=")
        allowed = "sbatch's long options, as in '--exclusive --mail-type=FAIL'"
        _refuse_if(not key.startswith("--"), name, "slurm_extra", option, allowed)
        key = key.removeprefix("--")
        others = f"another option: the executor itself sets or needs {', '.join(FORBIDDEN)}"
        _refuse_if(key in FORBIDDEN, name, "slurm_extra", option, others)
        options[key] = value if equals else True
    if reservation := resources.get("slurm_reservation"):
        options["reservation"] = str(reservation)
    if "no-requeue" not in options:
        options["requeue"] = True  # a site's default may be that no job is
    return options


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _refuse_if(wrong: bool, name: str, resource: str, value: object, allowed: str) -> None:
    if wrong:
        raise WorkflowError(f"{name}: resource {resource}: {value!r}: must be {allowed}")
