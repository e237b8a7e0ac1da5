"""A job's command: its outcome, and signals that come before it or while its state is saved."""

import json

import pytest

from snakemake_executor_plugin_submitit.command import RunCommand, outcome_file


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The folder of job 7, which this process is."""
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "7")
    monkeypatch.setenv("SUBMITIT_FOLDER", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("exit 3", 3), ("kill -9 $$", -9)])
def test_a_job_ends_as_its_command_does(job, command, code):
    run = RunCommand(command, str(job), 1, {})
    if code == 0:
        run()
    else:
        with pytest.raises(SystemExit) as ended:
            run()
        assert ended.value.code == 1
    outcome = json.loads(outcome_file(job, "7").read_text())
    assert (outcome["code"], outcome["out_of_memory"]) == (code, False)
    assert [path.name for path in job.iterdir()] == ["7_outcome.json"]


def test_a_signal_before_the_command_has_begun_requeues_the_job(job):
    again = RunCommand("exit 3", str(job), 2, {}).checkpoint()
    assert again.function.requeues == 1
    assert again.function.command == "exit 3"


def test_what_submitit_was_killed_in_saving_is_in_nobodys_way(job):
    """submitit refuses to save a job whose temporary file is there."""
    (job / "7_submitted.pkl.save_tmp").write_text("half")
    assert RunCommand("true", str(job), 1, {}).checkpoint()
    assert not list(job.iterdir())


def test_the_last_requeue_is_told(job):
    assert RunCommand("true", str(job), 0, {}).checkpoint() is None
    assert json.loads(outcome_file(job, "7").read_text())["code"] is None
