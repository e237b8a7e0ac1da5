"""A folder with a Snakefile, and Snakemake in it as a user runs it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from cluster import Cluster, wait_until

COLD = (sys.executable, "-m", "snakemake")


def processes_in(folder: Path) -> list[psutil.Process]:
    """Every process whose working directory is ``folder`` or lies in it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
    return found


class Project:
    """A folder with a Snakefile, and Snakemake in it through submitit."""

    def __init__(self, folder: Path, cluster: Cluster | None = None) -> None:
        self.folder = folder
        self.cluster = cluster
        self.environment = cluster.environment if cluster else dict(os.environ)
        self.processes: list[subprocess.Popen[str]] = []

    def write(self, snakefile: str) -> None:
        (self.folder / "Snakefile").write_text(textwrap.dedent(snakefile))

    def start(
        self,
        *arguments: str,
        profile: bool = False,
        program: Sequence[str] = COLD,
    ) -> subprocess.Popen[str]:
        """Start Snakemake; its output goes to log.txt."""
        if profile:
            options = ["--profile", "slurm"]
        else:
            options = ["--executor", "submitit", "--jobs", "500", "--latency-wait", "3"]
        (self.folder / "log.txt").write_text("")
        log = (self.folder / "log.txt").open("a")  # jobs of an earlier one may write there, too
        process = subprocess.Popen(
            [
                *(*program, "--seconds-between-status-checks", "1"),
                *(*options, "--nolock", "--rerun-incomplete", *arguments),
            ],
            cwd=self.folder,
            env=self.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
            text=True,
        )
        self.processes.append(process)
        return process

    def run(self, *arguments: str, profile: bool = False) -> int:
        """Run Snakemake, as a fork where there is a server, to its end."""
        forked = shutil.which("snakemake")
        program = [forked] if forked else COLD
        return self.start(*arguments, profile=profile, program=program).wait(timeout=300)

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def jobs(self) -> dict[str, str]:
        """SLURM's jobs of this folder by id, an array's tasks each, and their states."""
        assert self.cluster
        lines = self.cluster("squeue", "-r", "-h", "-t", "all", "-o", "%i|%T|%Z").splitlines()
        found = (line.split("|") for line in lines)
        return {
            id_: state for id_, state, folder in found if f"{folder}/".startswith(f"{self.folder}/")
        }

    def submitted(self) -> dict[str, str]:
        """The ids of jobs by their outputs, of all that was submitted and has not ended."""
        files = self.folder.glob(".snakemake/submitit/*/[0-9]*.json")
        records = (json.loads(path.read_text()) for path in files if path.stem.isdecimal())
        return {
            output: id_
            for record in records
            for id_, outputs in record["outputs"].items()
            for output in outputs
        }

    def job_log(self, id_: str) -> Path:
        (path,) = self.folder.glob(f".snakemake/submitit/*/{id_}_0_log.out")
        return path

    def wait_for(self, text: str, name: str, seconds: float = 60) -> None:
        """Until a file holds a regular expression."""
        self.wait_until(lambda: re.search(text, self.read(name)), f"{text} in {name}", seconds)

    def wait_until(self, true: Callable[[], object], what: str, seconds: float = 180) -> None:
        """Look again and again until something is true; fail with the queue and the log."""
        try:
            wait_until(true, what, seconds)
        except TimeoutError as error:
            queue = ""
            if self.cluster:
                with suppress(subprocess.CalledProcessError):  # its controller may be stopped
                    queue = self.cluster("squeue", "-t", "all", "-o", "%i %T %r %S %N")
            raise TimeoutError(f"{error}\n{queue}\n{self.read('log.txt')}") from error

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if self.cluster and (ids := list(self.jobs())):
            subprocess.run(["scancel", *ids], env=self.environment, check=False)
        # what a node that was set down has left: SLURM cannot end it, and would drain the node
        for process in processes_in(self.folder):
            with suppress(psutil.Error):
                process.kill()


TOY = """
    rule all:
        input: expand("out/{{i}}", i=range({count}))

    rule toy:
        output: "out/{{i}}"
        resources: runtime=5, mem_mb=100
        shell: {shell!r}
    """


def toy(project: Project, count: int, shell: str) -> None:
    project.write(TOY.format(count=count, shell=shell))


def a_job(project: Project) -> str:
    wait_until(project.jobs, "a job")
    return next(iter(project.jobs()))
