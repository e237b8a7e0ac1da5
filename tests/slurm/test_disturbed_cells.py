"""A cell on a real SLURM ends in the bytes of a local run, whatever happens to it."""

import subprocess
from collections.abc import Iterator

import psutil
import pytest
from cluster import wait_until
from grid import (
    SMALL,
    Local,
    cell_log,
    commands,
    copy_of_the_project,
    first_epoch,
    slow_down,
    speed_up,
    table,
)

LONG = 60  # epochs, half of which a second longer


@pytest.fixture(scope="module")
def long(tmp_path_factory, digits) -> Iterator[Local]:
    """One cell."""
    folder = tmp_path_factory.mktemp("long")
    copy_of_the_project(folder, epochs=LONG, seeds=1, data=digits)
    local = Local(folder)
    yield local
    local.end()


def test_whatever_disturbs_a_cell_it_ends_in_the_same_bytes(grid, slurm, digits, long):
    """One training: preempted, requeued by hand, left by its Snakemake, cancelled, gone on with."""
    copy_of_the_project(grid.folder, epochs=LONG, seeds=1, data=digits)
    slow_down(grid.folder)

    def running() -> list[str]:
        return [id_ for id_, state in grid.jobs().items() if state == "RUNNING"]

    def wait_until_it_goes_on(after: int) -> int:
        """Wait until its log begins beyond an epoch: where it does."""
        wait_until(
            lambda: "epoch " in cell_log(grid) and first_epoch(grid) > after,
            f"going on after epoch {after}",
            120,
        )
        return first_epoch(grid)

    def wait_for_epochs(count: int) -> None:
        wait_until(lambda: cell_log(grid).count("epoch") >= count, f"{count} epochs")

    first = grid.start(*SMALL, profile=True)
    # another at once
    wait_until((grid.folder / "results/tiny/lock").exists, "lock")
    assert grid.run(*SMALL, profile=True) == 1
    assert f"results/tiny/lock: is held by process {first.pid} on" in grid.log
    wait_for_epochs(2)
    # preempted
    (job,) = running()
    slurm.preempt(job)
    begun = wait_until_it_goes_on(after=1)
    wait_for_epochs(2)
    # requeued by hand
    slurm("scontrol", "requeue", job)
    begun = wait_until_it_goes_on(after=begun + 1)
    # without its Snakemake, and waited for by the next
    first.kill()
    first.wait()
    assert running() == [job]
    second = grid.start(*SMALL, profile=True)
    wait_until(lambda: "of a Snakemake that is gone" in grid.log, "the next Snakemake")
    wait_for_epochs(3)
    assert (first_epoch(grid), len(grid.jobs())) == (begun, 1)  # it has started no other
    # cancelled, and gone on with in another run
    slurm("scancel", job)
    assert second.wait(timeout=180) == 1
    assert f"{job} was cancelled" in grid.log
    speed_up(grid.folder)
    assert grid.run("table.csv", *SMALL, profile=True) == 0, grid.log
    assert first_epoch(grid) > begun + 1
    assert table(grid.folder) == long.table()


@pytest.mark.slow
def test_a_cell_on_two_nodes_loses_a_rank_is_stopped_and_goes_on(grid, digits):
    copy_of_the_project(grid.folder, epochs=60, seeds=1, data=digits)
    grid.environment["MASTER_ADDR"] = "127.0.0.1"  # both nodes are this machine
    nodes = ("--set-resources", "pretrain:nodes=2", "linear_eval:nodes=2", "knn_eval:nodes=2")

    def started(epoch: int) -> tuple[subprocess.Popen[str], dict[str, psutil.Process]]:
        """Snakemake; the ranks by their nodes, and the command that has started them."""
        process = grid.start(*SMALL, *nodes, profile=True)
        wait_until(lambda: f"epoch {epoch}/" in cell_log(grid), f"epoch {epoch}")
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
    assert process.wait(timeout=180) == 1
    assert "2 x 1 ranks have ended by exit code 137: the same command" in cell_log(grid)

    process, found = started(20)
    assert first_epoch(grid) > 1
    found["launcher"].terminate()
    assert process.wait(timeout=180) == 1
    assert "2 x 1 ranks have ended by exit code 75: the same command" in cell_log(grid)

    assert grid.run("table.csv", *SMALL, profile=True) == 0, grid.log
    assert "resumes with 1 ranks after step" in cell_log(grid)
    assert first_epoch(grid) >= 20


@pytest.mark.slow
def test_out_of_time_a_cell_is_requeued_and_ends_in_the_same_bytes(grid, digits, long):
    copy_of_the_project(grid.folder, epochs=LONG, seeds=1, data=digits)
    slow_down(grid.folder)
    process = grid.start(
        *("table.csv", *SMALL, "--set-resources", "pretrain:runtime=1"),
        # SLURM looks every 30 s whose time will be short by the next look: this is after 15 s, when
        # a job listens, and before 45 s, when the training is not done
        *("--submitit-signal-seconds", "15", "--groups", "pretrain=training"),
        profile=True,
    )
    wait_until(lambda: "epoch 2/" in cell_log(grid), "epoch 2")
    speed_up(grid.folder)
    assert process.wait(timeout=300) == 0, grid.log
    assert table(grid.folder) == long.table()
    assert first_epoch(grid) > 2
