"""A SLURM that is made of shell scripts, for faults and requests that no real one shows here."""

import os
import signal
import subprocess
from pathlib import Path

from project import Project


def programs(folder: Path, **scripts: str) -> Path:
    """A folder with SLURM's programs, as far as they are given, as shell scripts."""
    folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


CONFIG = "echo 'ClusterName             = far'; echo 'MinJobAge               = 300 sec'"
ACCOUNTED = "echo 'JobID|State|Reason|NodeList'"
DISABLED = "echo 'Slurm accounting storage is disabled' >&2; exit 1"
UNREACHED = "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"

TOY = """
    rule all:
        input: expand("out/{i}", i=range(3))

    rule toy:
        output: "out/{i}"
        resources: runtime=5
        threads: 3
        shell: "touch {output}"
    """
# SLURM's programs in a folder: sbatch numbers its jobs and keeps what it was given; who asks is
# told what the files of these names hold
SBATCH = """script=$2; cat "$script" >> submitted
test ! -e refuse || { cat refuse >&2; test -e accept || exit 1; }
id=$(($(cat last 2>/dev/null || echo 6) + 1)); echo $id > last
sed -n 's/^#SBATCH --job-name=//p' "$script" > name; echo "$id" >> ids
test -e refuse && exit 1
echo $id"""
SQUEUE = 'echo "$@" >> asked; test ! -e queue || sh queue'
SCANCEL = 'echo "$@" >> cancelled'


class Made:
    """A project on a SLURM that is made of shell scripts."""

    def __init__(self, folder: Path, **scripts: str) -> None:
        self.project = Project(folder)
        self.project.write(TOY)
        real = {"sbatch": SBATCH, "squeue": SQUEUE, "scancel": SCANCEL, "srun": "exit 0"}
        accounts = {"sacct": DISABLED, "scontrol": CONFIG}
        bin_ = programs(folder / "bin", **{**real, **accounts, **scripts})
        path = f"{bin_}:{os.environ['PATH']}"
        self.project.environment = {**self.project.environment, "PATH": path}

    def write(self, name: str, text: str) -> None:
        (self.project.folder / name).write_text(text)

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start Snakemake, whose jobs are submitted and run."""
        self.write("queue", RUNNING)
        process = self.project.start(*options)
        self.wait(self.project.submitted, "a record")
        return process

    def leave_behind(self) -> None:
        """Start Snakemake, and kill it while its jobs run."""
        process = self.start()
        process.kill()
        process.wait()

    def wait(self, true, what: str) -> None:
        self.project.wait_until(true, what, seconds=90)


RUNNING = 'for i in 0 1 2; do echo "$(cat last)_$i|RUNNING|None|n1"; done\n'


def interrupt(process) -> None:
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 1
