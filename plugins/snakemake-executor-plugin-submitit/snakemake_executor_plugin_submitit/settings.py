"""The options ``--submitit-…`` of Snakemake's command line."""

from dataclasses import dataclass, field

from snakemake_interface_executor_plugins.settings import ExecutorSettingsBase


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """The options ``--submitit-…`` of the command line."""

    cluster: str = field(
        default="slurm",
        metadata={"help": "slurm, or local (processes on this machine)."},
    )
    max_jobs: int = field(
        default=1000,
        metadata={
            "help": "Maximum number of queued and running jobs. --jobs limits them, too, but then "
            "Snakemake weighs all that wait again whenever one ends."
        },
    )
    array_size: int = field(
        default=1000,
        metadata={"help": "Maximum number of jobs in one array; SLURM's own limit is respected."},
    )
    array_parallelism: int = field(
        default=256, metadata={"help": "Maximum number of jobs of one array that run at once."}
    )
    signal_seconds: int = field(
        default=90,
        metadata={
            "help": "Seconds before the time limit at which SLURM signals a job to save its state."
        },
    )
    requeues: int = field(
        default=100,
        metadata={
            "help": "Maximum number of requeues of a job, after time limits and preemptions."
        },
    )
    keep_logs: bool = field(
        default=False, metadata={"help": "Keep the logs of jobs that ended well, too."}
    )
    log_days: int = field(
        default=10, metadata={"help": "Days after which the logs of earlier runs are deleted."}
    )
    detach: bool = field(
        default=False,
        metadata={
            "help": "Leave the jobs to the next Snakemake when this one is interrupted (Ctrl-C)."
        },
    )
    setup: str = field(
        default="",
        metadata={"help": "A shell command on the node before each job, e.g. 'module load cuda'."},
    )
