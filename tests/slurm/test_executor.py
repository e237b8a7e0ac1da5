"""The executor on a real SLURM: what is asked for, and arrays."""

import os
import subprocess
import time

import pytest
from project import Project, toy
from snakemake.common import tests as snakemake_tests

from snakemake_executor_plugin_submitit import ExecutorSettings


class SnakemakesOwnTests(snakemake_tests.TestWorkflowsLocalStorageBase):
    __test__ = False
    cluster = ""

    def get_executor(self) -> str:
        return "submitit"

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(cluster=self.cluster)


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
            output: "out/job"
            threads: 3
            resources:
                slurm_partition="high", slurm_account="lab", constraint="fast",
                gpus=2, mem_mb=300, runtime=17, nodes=2,
                slurm_extra="--comment='two words' --no-kill",
            shell: "scontrol show job $SLURM_JOB_ID -o > {output}; "
                "echo gpus=$CUDA_VISIBLE_DEVICES >> {output}; "
                "srun --overlap -N2 -n2 -l hostname >> {output}"
        """
    )
    assert project.run() == 0, project.log
    told = project.read("out/job")
    for expected in (
        *("Partition=high", "Account=lab", "Features=fast", "NumNodes=2", "CPUs/Task=3"),
        *("TresPerNode=gres:gpu:2", "MinMemoryNode=300M", "TimeLimit=00:17:00"),
        *("Comment=two words", "JobName=all", "gpus=0,1\n", "\n1: "),
    ):
        assert expected in told, expected


def test_gres_is_passed_on(project):
    project.write(
        """
        rule all:
            output: "out/gpus"
            resources: gres="gpu:1"
            shell: "echo $CUDA_VISIBLE_DEVICES $SLURM_JOB_NUM_NODES > {output}"
        """
    )
    assert project.run() == 0, project.log
    assert project.read("out/gpus") in ("0 1\n", "1 1\n")


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        ("gpus=-1", "resource gpus: -1: must be a whole number from 1"),
        ("slurm_partition='a\\nb'", r"resource slurm_partition: 'a\nb': must be one line of text"),
        ("slurm_extra='-p main'", "resource slurm_extra: '-p': must be sbatch's long options"),
        ("slurm_partition='nowhere'", "invalid partition specified: nowhere"),
        ("gpus=3", "Requested node configuration is not available"),
    ],
)
def test_a_request_that_cannot_be_met_is_told_at_once(project, resource, message):
    project.write(
        f"""
        rule all:
            output: "out"
            resources: {resource}
            shell: "touch {{output}}"
        """
    )
    assert project.run() == 1
    assert message in project.log
    assert set(project.jobs().values()) <= {"FAILED"}  # a trace of the refusal


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


def test_ready_jobs_are_one_array_and_all_are_asked_for_at_once(project, tmp_path):
    """Counted by programs of the same names that note each call and run the real ones."""
    calls = tmp_path / "calls"
    calls.mkdir()
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name in ("sbatch", "squeue", "sacct", "scontrol", "scancel"):
        real = subprocess.check_output(["which", name], text=True).strip()
        (bin_ / name).write_text(f'#!/bin/sh\necho >> {calls}/{name}\nexec {real} "$@"\n')
        (bin_ / name).chmod(0o755)
    project.environment = {
        **project.environment,
        "PATH": f"{bin_}:{os.environ['PATH']}",
    }
    toy(project, 30, "touch {output}")
    began = time.monotonic()
    code = project.run("--submitit-array-parallelism", "4")
    seconds = time.monotonic() - began
    assert code == 0, project.log
    count = {path.name: path.read_text().count("\n") for path in calls.iterdir()}
    assert count.pop("sbatch") == 1
    assert count.pop("sacct") == 1  # is accounting on?
    assert count.pop("squeue") <= seconds  # a round a second
    assert count == {}
    assert len({id_.split("_")[0] for id_ in project.jobs()}) == 1
    assert not list((project.folder / ".snakemake/submitit").glob("*.pkl"))


def test_no_more_of_an_array_run_at_once_than_asked_for(project):
    toy(project, 8, "date +%s.%N > {output}; sleep 1; date +%s.%N >> {output}")
    assert project.run("--submitit-array-parallelism", "2") == 0, project.log
    times = [[float(t) for t in project.read(f"out/{i}").split()] for i in range(8)]
    for start, _ in times:
        assert sum(begin <= start < end for begin, end in times) <= 2


def test_an_array_has_a_size(project):
    toy(project, 5, "touch {output}")
    assert project.run("--submitit-array-size", "2") == 0, project.log
    assert len({id_.split("_")[0] for id_ in project.jobs()}) == 3


def test_without_slurm(tmp_path):
    project = Project(tmp_path)
    toy(project, 3, "echo ${{CUDA_VISIBLE_DEVICES:-unset}} > {output}")
    assert project.run("--submitit-cluster", "local", "--jobs", "2") == 0, project.log
    expected = os.environ.get("CUDA_VISIBLE_DEVICES", "unset") + "\n"
    assert [project.read(f"out/{i}") for i in range(3)] == [expected] * 3


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
