"""The grid on a real SLURM: the table of a local run, byte for byte, whatever happens to a cell."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from cluster import Cluster, wait_until
from helpers import TINY, copy_project, processes_in
from project import Project

TINY_VALUES = yaml.safe_load(TINY.read_text())
SMALL = (
    *("--configfile", "tiny.yaml", "--latency-wait", "3", "--retries", "0"),
    *("--default-resources", "mem_mb=1000", "runtime=5"),
)


def copy_of_the_project(folder: Path, epochs: int, seeds: int) -> None:
    """The package and the workflow, and a study of one configuration."""
    copy_project(folder, "plugins")
    block = {"methods": ["moco"], "negatives": [16], "margins": ["eqco"]}
    study = {**TINY_VALUES, "grid": [{**block, "seeds": list(range(seeds))}]}
    study["pretrain"] = {**study["pretrain"], "epochs": epochs, "queue": 512}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(study))


def table(folder: Path) -> bytes:
    return b"".join(
        (folder / "results/tiny" / name).read_bytes() for name in ("table.csv", "negatives.svg")
    )


def locally(folder: Path) -> bytes:
    """The table of an undisturbed run on this machine."""
    command = [sys.executable, "-m", "snakemake", "--configfile", "tiny.yaml", "--cores", "2"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return table(folder)


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("short")
    copy_of_the_project(folder, epochs=2, seeds=3)
    return locally(folder)


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> bytes:
    """One cell that trains long enough to be disturbed twice."""
    folder = tmp_path_factory.mktemp("long")
    copy_of_the_project(folder, epochs=LONG, seeds=1)
    return locally(folder)


LONG = 400


@pytest.fixture
def grid(slurm: Cluster, tmp_path: Path, fork_server: None) -> Iterator[Project]:
    slurm.set_up_again()
    grid = Project(tmp_path, slurm)
    grid.environment = {
        **grid.environment,
        "PYTHONPATH": f"{tmp_path}:{tmp_path / 'plugins'}",
        "EQCO_CHECKPOINT_SECONDS": "2",
        "EQCO_DEVICE": "cpu",  # this cluster's GPUs are pretended
    }
    yield grid
    grid.end()


def cell_log(grid: Project) -> str:
    """pretrain.log of all cells: a line an epoch."""
    return "".join(
        path.read_text() for path in grid.folder.glob("results/tiny/cells/**/pretrain.log")
    )


def first_epoch(grid: Project) -> int:
    """Of the one cell's last process: its log begins where the training went on."""
    return int(cell_log(grid).split("epoch ")[1].split("/")[0])


def commands(grid: Project) -> list[psutil.Process]:
    """The pretrain commands that run in the folder."""
    found = []
    for process in processes_in(grid.folder / "results" / "tiny"):
        with suppress(psutil.Error):
            if process.cmdline()[1:4] == ["-m", "eqco", "pretrain"]:
                found.append(process)
    return found


def trainings(grid: Project) -> list[dict[str, str]]:
    """Their environments."""
    found = []
    for process in commands(grid):
        with suppress(psutil.Error):
            found.append(process.environ())
    return found


def test_the_profile_gives_the_local_table(grid, short):
    copy_of_the_project(grid.folder, epochs=2, seeds=3)
    assert grid.run(*SMALL, profile=True) == 0, grid.log
    assert table(grid.folder) == short
    jobs = grid.jobs()
    assert len(jobs) == 1 + 3  # the data, and a job a cell: its evaluations travel with it
    assert len({id_.split("_")[0] for id_ in jobs}) == 2
    assert "3 of 3 cells done" in grid.log
    assert grid.run(*SMALL, profile=True) == 0
    assert "Nothing to be done" in grid.log


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a torch that sees no GPU")
def test_a_job_that_asked_for_a_gpu_does_not_train_without_one(grid):
    copy_of_the_project(grid.folder, epochs=2, seeds=1)
    del grid.environment["EQCO_DEVICE"]
    assert grid.run(*SMALL, profile=True) == 1
    told = cell_log(grid)
    assert told.startswith("eqco: --device: auto: torch ")
    assert "sees no GPU, but one is here" in told
    assert told.count("\n") == 1
    assert not list(grid.folder.rglob("encoder.safetensors"))


def test_a_cell_runs_on_the_gpu_that_slurm_gives_it(grid):
    copy_of_the_project(grid.folder, epochs=400, seeds=3)
    process = grid.start(*SMALL, profile=True)
    wait_until(lambda: list(grid.jobs().values()).count("RUNNING") >= 3, "three cells", 90)
    wait_until(lambda: len(trainings(grid)) == 3, "three trainings", 90)
    given = {(t["SLURMD_NODENAME"], t["CUDA_VISIBLE_DEVICES"]) for t in trainings(grid)}
    assert len(given) == 3
    assert given < {("n1", "0"), ("n1", "1"), ("n2", "0"), ("n2", "1")}
    wait_until(lambda: cell_log(grid).count("epoch 1/") == 3, "three first epochs", 90)
    os.kill(process.pid, signal.SIGINT)
    process.wait(timeout=60)
    wait_until(lambda: not trainings(grid), "the end of all trainings")
    # what was cancelled has saved its state
    assert list(grid.folder.glob("results/tiny/state/**/step-*"))


@pytest.mark.slow
def test_a_cell_on_two_nodes_loses_a_rank_is_stopped_and_goes_on(grid):
    copy_of_the_project(grid.folder, epochs=60, seeds=1)
    grid.environment["MASTER_ADDR"] = "127.0.0.1"  # both nodes are this machine
    nodes = ("--set-resources", "pretrain:nodes=2", "linear_eval:nodes=2", "knn_eval:nodes=2")

    def started(epoch: int) -> tuple[subprocess.Popen[str], dict[str, psutil.Process]]:
        """Snakemake; the ranks by their nodes, and the command that has started them."""
        process = grid.start(*SMALL, *nodes, profile=True)
        wait_until(lambda: f"epoch {epoch}/" in cell_log(grid), f"epoch {epoch}", 90)
        found = {}
        for command in commands(grid):
            variables = command.environ()
            is_rank = variables["SLURM_STEP_NUM_TASKS"] == "2"
            found[variables["SLURMD_NODENAME"] if is_rank else "launcher"] = command
        assert set(found) == {"n1", "n2", "launcher"}
        return process, found

    process, found = started(5)
    found["n2"].kill()
    wait_until(lambda: not found["n1"].is_running(), "the end of the other rank", 30)
    assert process.wait(timeout=60) == 1
    assert "2 x 1 ranks have ended by exit code 137: the same command" in cell_log(grid)

    process, found = started(20)
    assert first_epoch(grid) > 1
    found["launcher"].terminate()
    assert process.wait(timeout=60) == 1
    assert "2 x 1 ranks have ended by exit code 75: the same command" in cell_log(grid)

    assert grid.run(*SMALL, profile=True) == 0, grid.log
    assert "resumes with 1 ranks after step" in cell_log(grid)
    assert first_epoch(grid) >= 20


@pytest.mark.slow
def test_out_of_time_a_cell_is_requeued_and_ends_in_the_same_bytes(grid, long):
    copy_of_the_project(grid.folder, epochs=LONG, seeds=1)
    code = grid.run(
        *(*SMALL, "--set-resources", "pretrain:runtime=1"),
        # SLURM looks every 30 s whose time will be short by the next look: this is after 5 s, when
        # a job listens, and before 35 s, when the training is not done
        *("--submitit-signal-seconds", "25", "--groups", "pretrain=training"),
        profile=True,
    )
    assert code == 0, grid.log
    assert table(grid.folder) == long
    assert first_epoch(grid) > 5


def test_whatever_disturbs_a_cell_it_ends_in_the_same_bytes(grid, slurm, long):
    """One training: preempted, requeued by hand, left by its Snakemake, cancelled, gone on with."""
    copy_of_the_project(grid.folder, epochs=LONG, seeds=1)

    def running() -> list[str]:
        return [id_ for id_, state in grid.jobs().items() if state == "RUNNING"]

    def wait_until_it_goes_on(after: int) -> int:
        """Until its log begins beyond an epoch: where it does."""
        wait_until(
            lambda: "epoch " in cell_log(grid) and first_epoch(grid) > after,
            f"going on after epoch {after}",
            120,
        )
        return first_epoch(grid)

    first = grid.start(*SMALL, profile=True)
    wait_until(lambda: "epoch 5/" in cell_log(grid), "epoch 5", 90)
    # another at once
    assert grid.run(*SMALL, profile=True) == 1
    assert f"results/tiny/lock: is held by process {first.pid} on" in grid.log
    # preempted
    command = ("sbatch", "--parsable", "-o", "/dev/null", "-p", "high", "--exclusive", "-N2")
    command += ("--wrap", "sleep 300")
    urgent = slurm(*command).strip()
    wait_until(lambda: list(grid.jobs().values()).count("PENDING") == 1, "preemption")
    slurm("scancel", urgent)
    wait_until(lambda: len(running()) == 1, "requeue")
    begun = wait_until_it_goes_on(after=4)
    wait_until(lambda: cell_log(grid).count("epoch") >= 5, "five further epochs", 90)
    # requeued by hand
    (job,) = running()
    slurm("scontrol", "requeue", job)
    begun = wait_until_it_goes_on(after=begun + 3)
    # without its Snakemake, and waited for by the next
    first.kill()
    first.wait()
    assert running() == [job]
    second = grid.start(*SMALL, profile=True)
    wait_until(lambda: "of a Snakemake that is gone" in grid.log, "the next Snakemake", 90)
    wait_until(lambda: cell_log(grid).count("epoch") >= 20, "20 further epochs", 90)
    assert (first_epoch(grid), len(grid.jobs())) == (begun, 2)  # its data, and the cell once
    # cancelled, and gone on with in another run
    slurm("scancel", job)
    assert second.wait(timeout=60) == 1
    assert f"{job} was cancelled" in grid.log
    assert grid.run(*SMALL, profile=True) == 0, grid.log
    assert first_epoch(grid) > begun + 15
    assert table(grid.folder) == long


def test_it_runs_without_slurm(tmp_path, short):
    grid = Project(tmp_path)
    grid.environment["PYTHONPATH"] = str(tmp_path)
    copy_of_the_project(tmp_path, epochs=2, seeds=3)
    code = grid.run(*SMALL, "--submitit-cluster", "local", "--jobs", "2", profile=True)
    assert code == 0, grid.log
    assert table(tmp_path) == short
