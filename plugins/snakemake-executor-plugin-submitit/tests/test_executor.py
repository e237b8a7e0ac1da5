"""The executor on a real SLURM: what is asked for, and arrays."""

import csv
import os
import subprocess
import time

import pytest
from cluster import wait_until
from project import Project, toy
from snakemake.common import tests as snakemake_tests
from snakemake.settings.types import RemoteExecutionSettings

from snakemake_executor_plugin_submitit import ExecutorSettings


class SnakemakesOwnTests(snakemake_tests.TestWorkflowsLocalStorageBase):
    __test__ = False
    cluster = ""

    def get_executor(self) -> str:
        return "submitit"

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(cluster=self.cluster)

    def get_remote_execution_settings(self) -> RemoteExecutionSettings:
        settings = super().get_remote_execution_settings()
        settings.seconds_between_status_checks = 1  # theirs ask without a pause
        return settings

    @pytest.mark.slow
    def test_group_workflow(self, tmp_path):
        super().test_group_workflow(tmp_path)


class TestSnakemakesOwnOnLocal(SnakemakesOwnTests):
    __test__ = True
    cluster = "local"


class TestSnakemakesOwnOnSlurm(SnakemakesOwnTests):
    __test__ = True
    cluster = "slurm"

    @pytest.fixture(autouse=True)
    def _on_slurm(self, slurm, monkeypatch):
        monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])


def test_resources_are_what_sbatch_asks_for(project):
    project.write(
        """
        rule all:
            input: "out/job", "out/gpus"

        rule job:
            output: "out/job"
            threads: 3
            resources:
                slurm_partition="high", slurm_account="lab", constraint="fast",
                gpus=2, mem_mb=300, runtime=17, nodes=2,
                slurm_extra="--comment='two words' --no-kill",
            shell: "scontrol show job $SLURM_JOB_ID -o > {output}; "
                "echo gpus=$CUDA_VISIBLE_DEVICES >> {output}; "
                "srun --overlap -N2 -n2 -l hostname >> {output}"

        rule gres:
            output: "out/gpus"
            resources: gres="gpu:1", slurm_partition="high"
            shell: "echo $CUDA_VISIBLE_DEVICES $SLURM_JOB_NUM_NODES > {output}"
        """
    )
    assert project.run() == 0, project.log
    told = project.read("out/job")
    for expected in (
        *("Partition=high", "Account=lab", "Features=fast", "NumNodes=2", "CPUs/Task=3"),
        *("TresPerNode=gres:gpu:2", "MinMemoryNode=300M", "TimeLimit=00:17:00"),
        *("Comment=two words", "JobName=job", "gpus=0,1\n", "\n1: "),
    ):
        assert expected in told, expected
    assert project.read("out/gpus") in ("0 1\n", "1 1\n")


REFUSED = {
    "negative": ("gpus=-1", "resource gpus: -1: must be a whole number from 1"),
    "lines": (
        "slurm_partition='a\\nb'",
        r"resource slurm_partition: 'a\nb': must be one line of text",
    ),
    "short": (
        "slurm_extra='-p main'",
        "resource slurm_extra: '-p': must be sbatch's long options",
    ),
    "nowhere": (
        "slurm_partition='nowhere'",
        "was not submitted: sbatch: error: invalid partition specified: nowhere",
    ),
    "large": ("gpus=3", "Requested node configuration is not available"),
}
REFUSED_RULE = """
rule {name}:
    output: "{name}"
    resources: {resource}
    shell: "touch {{output}}"
"""


@pytest.fixture(scope="module")
def refused(slurm, projects) -> Project:
    """One Snakemake, all of whose jobs ask for what there is not."""
    project = projects(slurm)
    rules = [
        REFUSED_RULE.format(name=name, resource=resource) for name, (resource, _) in REFUSED.items()
    ]
    project.write(f"rule all:\n    input: {[*REFUSED]}\n" + "".join(rules))
    assert project.run("--keep-going") == 1
    return project


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_that_cannot_be_met_is_told_at_once(refused, name):
    (told,) = (line for line in refused.log.splitlines() if f"message: {name}: " in line)
    assert REFUSED[name][1] in told
    assert set(refused.jobs().values()) <= {"FAILED"}  # a trace of the refusal


def test_a_qos_is_asked_for(slurm_with_sacct, tmp_path):
    project = Project(tmp_path, slurm_with_sacct)
    slurm_with_sacct("sacctmgr", "-i", "add", "qos", "gold")
    project.write(
        """
        rule all:
            output: "out"
            resources: slurm_qos="gold"
            shell: "scontrol show job $SLURM_JOB_ID > {output}"
        """
    )
    assert project.run() == 0, project.log
    assert "QOS=gold" in project.read("out")


@pytest.fixture(scope="module")
def array(slurm, projects) -> tuple[Project, float]:
    """Six jobs that are ready at once, of which two may run, and the seconds that they took.

    SLURM's calls are counted by programs of the same names that note each and run the real ones.
    """
    project = projects(slurm)
    calls, bin_ = project.folder / "calls", project.folder / "bin"
    calls.mkdir()
    bin_.mkdir()
    for name in ("sbatch", "squeue", "sacct", "scontrol", "scancel"):
        real = subprocess.check_output(["which", name], text=True).strip()
        (bin_ / name).write_text(f'#!/bin/sh\necho >> {calls}/{name}\nexec {real} "$@"\n')
        (bin_ / name).chmod(0o755)
    project.environment = {**project.environment, "PATH": f"{bin_}:{os.environ['PATH']}"}
    toy(project, 6, "touch {output}")
    began = time.monotonic()
    assert project.run("--submitit-array-parallelism", "2") == 0, project.log
    return project, time.monotonic() - began


def test_ready_jobs_are_one_array_and_all_are_asked_for_at_once(array):
    project, seconds = array
    count = {path.name: path.read_text().count("\n") for path in project.folder.glob("calls/*")}
    assert count.pop("sbatch") == 1
    assert count.pop("sacct") == 1  # is accounting on?
    assert count.pop("scontrol") == 1  # its limits
    assert count.pop("squeue") <= seconds  # a round a second
    assert count == {}
    assert len(project.jobs()) == 6
    assert len({id_.split("_")[0] for id_ in project.jobs()}) == 1
    left = (project.folder / ".snakemake/submitit").rglob("*")
    assert [path.name for path in left] == ["efficiency.csv"]


def test_a_table_says_what_each_job_used(array):
    project, _ = array
    lines = csv.DictReader((project.folder / ".snakemake/submitit/efficiency.csv").open())
    jobs = {line["wildcards"]: line for line in lines}
    assert set(jobs) == {f"i={i}" for i in range(6)}
    assert {line["job"] for line in jobs.values()} == set(project.jobs())
    for line in jobs.values():
        assert (line["rule"], line["exit_code"], line["cpus"]) == ("toy", "0", "1")
        assert 0 < float(line["cpu_efficiency"]) <= 1.5  # Snakemake's own start
        assert float(line["max_rss_mb"]) > 20
        assert line["mem_mb"] == "100"


def test_no_more_of_an_array_run_at_once_than_asked_for(array, slurm):
    ours = array[0].jobs()
    lines = slurm("squeue", "-r", "-h", "-t", "all", "-o", "%i|%S|%e")
    jobs = (line.split("|") for line in lines.splitlines())
    times = [(begin, end) for id_, begin, end in jobs if id_ in ours]
    assert len(times) == 6
    for start, _ in times:
        assert sum(begin <= start < end for begin, end in times) <= 2


def test_an_array_has_a_size(project):
    toy(project, 5, "touch {output}")
    options = ("--submitit-array-size", "2", "--set-resources", "toy:slurm_extra='--hold'")
    project.start(*options)
    wait_until(lambda: len(project.jobs()) == 5, "five jobs")
    assert len({id_.split("_")[0] for id_ in project.jobs()}) == 3


def test_without_slurm(tmp_path):
    project = Project(tmp_path)
    toy(project, 2, "echo ${{CUDA_VISIBLE_DEVICES:-unset}} > {output}")
    assert project.run("--submitit-cluster", "local", "--jobs", "2") == 0, project.log
    expected = os.environ.get("CUDA_VISIBLE_DEVICES", "unset") + "\n"
    assert [project.read(f"out/{i}") for i in range(2)] == [expected] * 2


def test_an_unknown_cluster(tmp_path):
    project = Project(tmp_path)
    toy(project, 1, "touch {output}")
    assert project.run("--submitit-cluster", "abacus") == 1
    assert "--submitit-cluster: abacus: must be slurm, local" in project.log


def test_no_slurm_here(tmp_path):
    project = Project(tmp_path)
    project.environment["PATH"] = "/usr/bin/nowhere"
    toy(project, 1, "touch {output}")
    assert project.run() == 1
    assert "--submitit-cluster: slurm: " in project.log
