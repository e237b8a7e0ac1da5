"""A table of what jobs asked for and used, a line per job that has ended: ``efficiency.csv``."""

import csv
from pathlib import Path

from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit.command import Outcome

COLUMNS = (
    *("job", "rule", "wildcards", "exit_code"),
    *("seconds", "cpus", "cpu_efficiency", "mem_mb", "max_rss_mb"),
)


def append(path: Path, id_: str, job: JobExecutorInterface, outcome: Outcome) -> None:
    """Add the line of a job.

    Args:
        path: of the table; it begins with a header.
        id_: of the job on the cluster.
        job: the Snakemake job, or group of jobs, that it ran.
        outcome: its end. A job that was requeued tells of its last start alone.
    """
    seconds, cpus = outcome.seconds, job.threads
    group = job.is_group()
    row = {
        "job": id_,
        "rule": job.groupid if group else job.name,
        "wildcards": "" if group else " ".join(f"{k}={v}" for k, v in job.wildcards_dict.items()),
        "exit_code": outcome.code,
        "seconds": round(seconds, 1),
        "cpus": cpus,
        "cpu_efficiency": round(outcome.cpu_seconds / (seconds * cpus), 3) if seconds else "",
        "mem_mb": job.resources.get("mem_mb", ""),
        "max_rss_mb": round(outcome.max_rss_mb, 1),  # of the largest process
    }
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)
