"""Options that sbatch gets, by the names of resources that workflows have for it."""

from collections.abc import Iterator

import pytest
from made import Made, interrupt

RULE = """
rule {name}:
    output: "{name}"
    threads: 2
    resources: {resources}
    shell: "touch {{output}}"
"""
ASKED = {
    "gpus=2": "--gpus-per-node=2",
    "gpu=2": "--gpus-per-node=2",
    "gpu=2, gpus=2": "--gpus-per-node=2",
    "gpu=2, gpu_model='a100'": "--gpus-per-node=a100:2",
    "gpus=2, cpus_per_gpu=8": "--cpus-per-gpu=8",
    "cpus_per_task=7": "--cpus-per-task=7",
    "mem_mb=1500": "--mem=1500MB",
    "mem_mb_per_cpu=700": "--mem-per-cpu=700M",
    "qos='gold'": "--qos=gold",
    "slurm_reservation='course'": "--reservation=course",
    "slurm_extra='--mail-type=FAIL --exclusive'": "--exclusive",
    "runtime='2h'": "--time=120",
    "slurm_extra='--no-requeue'": "--no-requeue",
}


REFUSED = {
    "gpu=2, gpus=1": "gpu: 2: must be equal to gpus, which is given, too",
    "gpu_model='a100'": "gpu_model: 'a100': must be given with gpus",
    "mpi='mpiexec'": "mpi: 'mpiexec': must be left out: it has no meaning here",
    "tasks=4": "tasks: 4: must be left out: it has no meaning here",
    "clusters='other'": "clusters: 'other': must be left out: it has no meaning here",
    "mem_mb_per_cpu=0": "mem_mb_per_cpu: 0: must be a whole number from 1",
    "runtime=1": "runtime: 1: must be longer than --submitit-signal-seconds, 90 s",
    "slurm_extra='--array=0-3'": "slurm_extra: '--array=0-3': must be another option: ",
    "slurm_extra='--signal=TERM@9'": "slurm_extra: '--signal=TERM@9': must be another option: ",
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Iterator[Made]:
    """One Snakemake that asks for all of it, a rule each."""
    made = Made(tmp_path_factory.mktemp("asked"))
    rules = [RULE.format(name=name_of(text), resources=text) for text in (*ASKED, *REFUSED)]
    names = [name_of(text) for text in (*ASKED, *REFUSED)]
    made.project.write(f"rule all:\n    input: {names}\n" + "".join(rules))
    made.write("queue", 'for i in $(cat ids); do echo "$i|RUNNING|None|n1"; done\n')
    process = made.project.start("--submitit-setup", "module load cuda", "--keep-going")
    made.wait(lambda: len(made.project.submitted()) == len(ASKED), "records")
    made.wait(lambda: made.project.log.count("Error in rule") == len(REFUSED), "refusals")
    yield made
    interrupt(process)
    made.project.end()


def name_of(resources: str) -> str:
    return f"rule{[*ASKED, *REFUSED].index(resources)}"


@pytest.mark.parametrize("resources", ASKED)
def test_a_resource_is_an_option_of_sbatch(asked, resources):
    name = name_of(resources)
    scripts = asked.project.read("submitted").split("#!/bin/bash")
    (script,) = (script for script in scripts if f"--job-name={name}-" in script)
    assert f"#SBATCH {ASKED[resources]}\n" in script
    assert ("#SBATCH --mem=" in script) == ("mem_mb=" in resources)
    assert ("--requeue" in script) == ("no-requeue" not in resources)
    assert "\nmodule load cuda\n" in script.split("srun")[0]
    assert f"#SBATCH --comment={name}:\n" in script


@pytest.mark.parametrize("resources", REFUSED)
def test_what_would_be_ignored_is_refused(asked, resources):
    assert f"{name_of(resources)}: resource {REFUSED[resources]}" in asked.project.log
