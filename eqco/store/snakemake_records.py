"""Snakemake's records of the files that its jobs made, and a check that they belong to the results.

Snakemake re-runs a job if its record shows that its parameters have changed. It keeps a file
without a record, and a file beside the record of another commit's results, under parameters that
are not the file's. The identity within each result file tells them apart.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snakemake.persistence import RECORD_FORMAT_VERSION
from snakemake.persistence.file import FilePersistence

from eqco.errors import InputError
from eqco.runtime.files import canonical
from eqco.store.cells import SUMMARY, evaluations, read_json, settings_of
from eqco.study.grid import Grid


class Records:
    """The records in a study's folder.

    Args:
        folder: the study's, which holds ``.snakemake``.
    """

    def __init__(self, folder: Path) -> None:
        self._records = FilePersistence(nolock=True, path=(folder / ".snakemake").absolute())

    # private; Snakemake is pinned exactly
    def is_incomplete(self, path: str) -> bool:
        """Whether the job that makes the file was cut short, so that Snakemake runs it again."""
        return bool(self._records._filter_incomplete_keys([path]))

    def parameters(self, path: str) -> list[str] | None:
        """The parameters that a file was made with, each as its ``repr``; None without a record."""
        record = self._records._read_record(path)
        if not record or record.record_format_version != RECORD_FORMAT_VERSION:
            return None
        parameters: list[str] = record.params
        return parameters


def check(grid: Grid, folder: Path) -> None:
    """Refuse result files of another configuration that Snakemake would keep.

    Args:
        grid: the study's.
        folder: the study's folder.

    Raises:
        InputError: naming the first such file.
    """
    records = Records(folder)
    for path, key, value, parameters in _expected(grid):
        try:
            actual = read_json(folder / path).get(key)
        except InputError:
            continue  # missing, or damaged and for the table to report
        if actual == value or records.is_incomplete(path):
            continue
        recorded = records.parameters(path)
        if recorded is None or all(repr(parameter) in recorded for parameter in parameters):
            raise InputError(
                f"results/{folder.name}/{path}: is a result of other parameters, and "
                "Snakemake's record of it is missing or of another commit: `dvc checkout` brings "
                "back both; else delete its folder, and the cell is run again"
            )


def _expected(grid: Grid) -> Iterator[tuple[str, str, Any, list[str]]]:
    """Each result file, a key in it and the key's value, and the parameters of the file's job."""
    for path, cell in grid.cells.items():
        yield f"cells/{path}/{SUMMARY}", "config_hash", cell.hash, [cell.hash]
    evaluate = grid.study.evaluate
    settings = {name: settings_of(evaluate, name) for name in evaluations(evaluate)}
    for path in grid.cells:
        for name, values in settings.items():
            parameters = [canonical(value) for value in values.values()]
            yield f"cells/{path}/{name}", "settings", values, parameters
