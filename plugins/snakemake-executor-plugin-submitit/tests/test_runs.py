"""Folders of runs: what they hold, and when it goes."""

import json

from snakemake_executor_plugin_submitit.runs import Record, Run, earlier_runs


def started(tmp_path) -> Run:
    run = Run.start(tmp_path, "slurm")
    run.settle("far")
    return run


def test_the_next_run_reads_what_one_wrote(tmp_path):
    run = started(tmp_path)
    name = run.name("toy")
    assert name == run.name("toy") == f"toy-{run.folder.name}"
    record = Record(name, {"9_0": {"a": "1"}, "9_1": {"b": "2"}})
    run.add(record)
    run.add(Record(name, {"10": {"c": "3"}}))
    again = Run.read(run.folder)
    assert again == run
    assert again.unfinished == {"9": {"9_0", "9_1"}, "10": {"10"}}
    assert list(again.records()) == ["9", "10"]  # the latest last
    assert again.records()["9"] == record


def test_an_array_is_forgotten_with_its_last_job_and_a_run_with_its_last_file(tmp_path):
    run = started(tmp_path)
    run.add(Record("toy", {"9_0": {"a": "1"}, "9_1": {"b": "2"}}))
    log = run.folder / "9_0_log.out"
    log.touch()
    run.end("9_0")
    assert (run.folder / "9.json").exists()
    run.end("9_1")
    run.end("9_1")
    assert not (run.folder / "9.json").exists()
    run.close()
    assert log.exists()
    log.unlink()
    run.close()
    assert not run.folder.exists()


def test_damaged_records_are_left_out(tmp_path):
    """A file server that lost power, or another Snakemake that deletes them now."""
    run, other = started(tmp_path), Run.start(tmp_path, "local")
    run.add(Record("toy", {"9": {"a": "1"}}))
    (run.folder / "10.json").write_bytes(bytes(20))
    (tmp_path / "nothing").mkdir()
    (read,) = earlier_runs(tmp_path, but=other)
    assert set(read.records()) == {"9"}
    (run.folder / "run.json").write_text(json.dumps({"cluster": "slurm", "moon": "full"}))
    assert earlier_runs(tmp_path, but=other) == []
