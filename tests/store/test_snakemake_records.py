"""Results of other parameters, beside Snakemake's records or without them."""

import pytest
from snakemake.persistence import RECORD_FORMAT_VERSION

from eqco.errors import InputError
from eqco.store.cells import SUMMARY, settings_of, write_json
from eqco.store.snakemake_records import Records, check
from eqco.study.grid import Grid


@pytest.fixture
def cell(tiny):
    return next(iter(Grid(tiny).cells.values()))


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Pretend that Snakemake recorded parameters for every file: ``record(["'a'"])``."""

    class Record:
        record_format_version = RECORD_FORMAT_VERSION

    def pretend(parameters, *, version=RECORD_FORMAT_VERSION, incomplete=False):
        Record.params, Record.record_format_version = parameters, version
        from snakemake.persistence.file import FilePersistence

        monkeypatch.setattr(FilePersistence, "_read_record", lambda self, key: Record)
        if incomplete:
            monkeypatch.setattr(FilePersistence, "_filter_incomplete_keys", lambda self, keys: keys)

    return pretend


def write_summary(folder, cell, config_hash):
    write_json(folder / "cells" / cell.path / SUMMARY, {"config_hash": config_hash})


def test_no_results_and_results_of_this_study_pass(tiny, cell, tmp_path):
    check(Grid(tiny), tmp_path)
    write_summary(tmp_path, cell, cell.hash)
    check(Grid(tiny), tmp_path)


def test_a_result_of_another_configuration_without_a_record_is_refused(tiny, cell, tmp_path):
    write_summary(tmp_path, cell, "another")
    message = rf"^results/{tmp_path.name}/cells/{cell.path}/pretrain\.json: is a result of other"
    with pytest.raises(InputError, match=message):
        check(Grid(tiny), tmp_path)


def test_a_result_whose_record_says_so_is_run_again_by_snakemake(tiny, cell, tmp_path, record):
    write_summary(tmp_path, cell, "another")
    record(["'another'"])
    check(Grid(tiny), tmp_path)


@pytest.mark.parametrize("version", [RECORD_FORMAT_VERSION, RECORD_FORMAT_VERSION - 1])
def test_a_record_of_this_study_or_of_an_old_format_does_not_help(
    tiny, cell, tmp_path, record, version
):
    write_summary(tmp_path, cell, "another")
    record([repr(cell.hash)], version=version)
    with pytest.raises(InputError, match="is a result of other parameters"):
        check(Grid(tiny), tmp_path)


def test_a_result_that_was_cut_short_is_run_again_by_snakemake(tiny, cell, tmp_path, record):
    write_summary(tmp_path, cell, "another")
    record([repr(cell.hash)], incomplete=True)
    check(Grid(tiny), tmp_path)


def test_an_evaluation_with_other_settings_is_refused(tiny, cell, tmp_path, study_with):
    path = tmp_path / "cells" / cell.path / "knn.json"
    write_json(path, {"settings": settings_of(tiny.evaluate, "knn.json")})
    check(Grid(tiny), tmp_path)
    changed = Grid(study_with({"evaluate.knn.k": 7}))
    with pytest.raises(InputError, match=r"knn\.json: is a result of other parameters"):
        check(changed, tmp_path)


def test_snakemakes_own_interface_is_as_it_is_used_here(tmp_path):
    records = Records(tmp_path)
    assert not records.is_incomplete("cells/a/pretrain.json")
    assert records.parameters("cells/a/pretrain.json") is None
