"""The states of jobs, out of what SLURM's programs say, or do not say."""

import pytest
from made import ACCOUNTED, CONFIG, DISABLED, UNREACHED, programs

from snakemake_executor_plugin_submitit.clusters import Slurm, State


def asked(cluster: Slurm, *ids: str) -> dict[str, State] | None:
    return cluster.states(ids, ["toy-1a2b"], since=0)


@pytest.mark.parametrize("fault", [b"\0", None], ids=["cannot be executed", "is away"])
def test_a_sacct_that_cannot_be_started_is_asked_again(tmp_path, monkeypatch, fault):
    script = f"{ACCOUNTED}; echo '7|RUNNING|None|n1'"
    sacct = programs(tmp_path, sacct=script, scontrol=CONFIG) / "sacct"
    monkeypatch.setenv("PATH", str(tmp_path))
    cluster = Slurm()
    if fault is None:
        sacct.rename(tmp_path / "away")
    else:
        sacct.write_bytes(fault)
    assert asked(cluster, "7") is None
    sacct.unlink(missing_ok=True)
    programs(tmp_path, sacct=script)
    assert asked(cluster, "7") == {"7": State("RUNNING", "None", "n1")}


def test_a_job_that_accounting_does_not_know_yet_is_looked_for_in_the_queue(tmp_path, monkeypatch):
    squeue = "echo '8|RUNNING|None|n1'"
    sacct = f"{ACCOUNTED}; echo '7|COMPLETED|None|n1'"
    folder = programs(tmp_path, sacct=sacct, squeue=squeue, scontrol=CONFIG)
    monkeypatch.setenv("PATH", str(folder))
    cluster = Slurm()
    running, completed = (State(name, "None", "n1") for name in ("RUNNING", "COMPLETED"))
    assert asked(cluster, "7", "8") == {"7": completed, "8": running}
    programs(tmp_path, squeue="exit 0")
    assert asked(cluster, "7", "8") == {"7": completed}
    programs(tmp_path, squeue=UNREACHED)  # it is not known to have ended
    assert asked(cluster, "7", "8")["8"].active


def test_while_accounting_is_silent_what_left_the_queue_is_not_known_to_have_ended(
    tmp_path, monkeypatch
):
    refused = "echo 'sacct: error: slurm_persist_conn_open_without_init: refused' >&2; exit 1"
    folder = programs(tmp_path, sacct=refused, squeue="echo '8|RUNNING|None|n1'", scontrol=CONFIG)
    monkeypatch.setenv("PATH", str(folder))
    states = asked(Slurm(), "7", "8")  # its database was down when it was asked first, too
    assert states["7"].active
    assert states["8"] == State("RUNNING", "None", "n1")
    programs(tmp_path, squeue=UNREACHED)
    assert asked(Slurm(), "7", "8") is None


def test_without_accounting_the_queue_alone_is_asked(tmp_path, monkeypatch):
    folder = programs(tmp_path, sacct=DISABLED, squeue="echo '8|RUNNING|None|n1'", scontrol=CONFIG)
    monkeypatch.setenv("PATH", str(folder))
    assert set(asked(Slurm(), "7", "8")) == {"8"}
    (folder / "sacct").unlink()
    assert set(asked(Slurm(), "7", "8")) == {"8"}


def test_pending_jobs_of_an_array_with_holes_are_found(tmp_path, monkeypatch):
    """sacct abbreviates what is left, 123_[0-998:2%256], and so does squeue without -r."""
    sacct = f"{ACCOUNTED}; echo '123_[0-998:2%256]|PENDING|Priority|'"
    squeue = """case "$*" in
*-r*) for i in 0 2 4; do echo "123_$i|PENDING|Priority|"; done ;;
*) echo '123_[0-998:2%256]|PENDING|Priority|' ;;
esac"""
    folder = programs(tmp_path, sacct=sacct, squeue=squeue, scontrol=CONFIG)
    monkeypatch.setenv("PATH", str(folder))
    states = asked(Slurm(), "123_0", "123_4")
    assert {states[id_].name for id_ in ("123_0", "123_4")} == {"PENDING"}


@pytest.mark.parametrize("name", ["EXPEDITING", "RESV_DEL_HOLD", "REVOKED", "?"])
def test_a_state_that_a_newer_slurm_has_is_no_end(name):
    assert State(name).active
    assert not State("TIMEOUT").active


@pytest.mark.parametrize("name", ["PREEMPTED", "NODE_FAIL", "BOOT_FAIL"])
def test_a_job_that_is_queued_again_before_accounting_says_so_goes_on(tmp_path, monkeypatch, name):
    sacct = f"{ACCOUNTED}; echo '7|{name}|None|n1'; echo '8|FAILED|None|n1'"
    squeue = "echo '7|PENDING|BeginTime|'; echo '8|COMPLETING|None|n1'"
    folder = programs(tmp_path, sacct=sacct, squeue=squeue, scontrol=CONFIG)
    monkeypatch.setenv("PATH", str(folder))
    states = asked(Slurm(), "7", "8")
    assert states == {"7": State("PENDING", "BeginTime"), "8": State("FAILED", "None", "n1")}
    programs(tmp_path, squeue="exit 0")
    assert asked(Slurm(), "7")["7"].name == name
