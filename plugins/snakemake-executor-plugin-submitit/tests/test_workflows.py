"""Workflows of other kinds end in the files of Snakemake's own executor, after a kill too."""

import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from project import COLD

SCATTER_GATHER = """
    rule all:
        input: "gathered"

    checkpoint scatter:
        output: directory("parts")
        shell: "mkdir {output}; for i in 2 3 4; do echo $i > {output}/$i; done"

    rule square:
        input: "parts/{i}"
        output: "squared/{i}"
        shell: "echo $(($(cat {input}) * $(cat {input}))) > {output}"

    def squared(wildcards):
        parts = checkpoints.scatter.get().output[0]
        return expand("squared/{i}", i=glob_wildcards(parts + "/{i,[0-9]+}").i)

    rule gather:
        input: squared
        output: "gathered"
        log: "gather.log"
        shell: "sort -n {input} > {output} 2> {log}"
    """
SCRIPTS_AND_GROUPS = """
    rule all:
        input: "report"

    rule count:
        output: "counted/{i}"
        group: "numbers"
        run:
            with open(output[0], "w") as file:
                print(int(wildcards.i) + 1, file=file)

    rule double:
        input: "counted/{i}"
        output: "doubled/{i}"
        params: factor=2
        group: "numbers"
        script: "double.py"

    rule report:
        input: expand("doubled/{i}", i=range(3))
        output: "report"
        threads: 2
        shell: "echo {threads} $(cat {input}) > {output}"
    """
DOUBLE = """
from pathlib import Path
number = int(Path(snakemake.input[0]).read_text())
Path(snakemake.output[0]).write_text(f"{number * snakemake.params.factor}\\n")
"""
TEMPORARY_AND_RETRIED = """
    rule all:
        input: "used/0", "used/1", "larger", "folder"

    rule draft:
        output: temp("draft/{i}")
        shell: "echo draft {wildcards.i} > {output}"

    rule use:
        input: "draft/{i}"
        output: "used/{i}"
        shell: "cat {input} {input} > {output}"

    rule larger:
        output: "larger"
        retries: 2
        resources: mem_mb=lambda wildcards, attempt: 100 * attempt, runtime=5
        shell: "echo {resources.mem_mb} > {output}; test {resources.mem_mb} -ge 200"

    rule folder:
        input: "used/0"
        output: directory("folder")
        shell: "mkdir -p {output}/deep; cp {input} {output}/deep/copy"
    """


class Workflow(NamedTuple):
    """A Snakefile, and a file that is there in the middle of its run."""

    snakefile: str
    middle: str


WORKFLOWS = {
    "scatter and gather": Workflow(SCATTER_GATHER, "parts"),
    "scripts and groups": Workflow(SCRIPTS_AND_GROUPS, "doubled/1"),
    "temporary and retried": Workflow(TEMPORARY_AND_RETRIED, "used/1"),
}


def files(folder: Path) -> dict[str, bytes]:
    """Files that a workflow has made, its logs included.

    A temporary file may outlive a killed Snakemake, whatever the executor.
    """
    paths = (path for path in folder.rglob("*") if path.is_file())
    named = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    return {
        name: data
        for name, data in named.items()
        if not name.startswith((".snakemake/", ".cache/", "log.txt", "draft/"))
    }


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name != "scripts and groups"))
        for name in WORKFLOWS
    ],
)
def test_a_workflow_ends_in_the_same_files_on_slurm_although_snakemake_is_killed(
    name, slurm, projects
):
    snakefile, middle = WORKFLOWS[name]
    local, remote = projects(), projects(slurm)
    for project in (local, remote):
        project.write(snakefile)
        (project.folder / "double.py").write_text(DOUBLE)
    command = [*COLD, "--cores", "2", "--quiet", "all"]
    done = subprocess.run(command, cwd=local.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    process = remote.start()
    remote.wait_until((remote.folder / middle).exists, middle)
    process.kill()
    process.wait()
    assert remote.run() == 0, remote.log
    assert files(remote.folder) == files(local.folder)
    assert len(files(local.folder)) > 3
    assert remote.run() == 0
    assert "Nothing to be done" in remote.log
