"""The plan of a Snakemake run: the study, its cells, and the paths that its rules need.

No torch is imported here, since every job of a cluster parses the Snakefile again.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eqco.errors import InputError
from eqco.runtime.files import canonical, write
from eqco.store.archive import stand_ins
from eqco.store.cells import Files
from eqco.store.selection import choose, confirmed
from eqco.store.snakemake_records import check
from eqco.study.grid import Grid
from eqco.study.load import load_study, parse_study
from eqco.study.quick import shrink
from eqco.study.selection import arms
from eqco.study.study import Study


@dataclass(frozen=True)
class Plan:
    """The study of one run.

    Paths that rules use are relative to the study's folder, which is the working directory. They
    are parameters of the jobs, and a project that moved must not make its cells stale.
    """

    root: Path  # of the project
    file: Path  # of the study, absolute
    grid: Grid
    archived: dict[str, Files]  # cells that need not run for the table, by path

    @property
    def study(self) -> Study:
        """The study, shrunk if a quick run is asked for."""
        return self.grid.study

    @property
    def folder(self) -> Path:
        """The study's folder: Snakemake's records lie beside the results, and travel with them."""
        return self.root / "results" / self.study.study

    @property
    def cell_pattern(self) -> str:
        """A cell's path with wildcards: ``method~{method}/negatives~{negatives}/…``."""
        return "/".join(f"{axis}~{{{axis}}}" for axis in self.grid.axes)

    @property
    def deciding_cells(self) -> list[str]:
        """The paths of the cells that a selection reads and the archive does not hold."""
        deciding = (
            path
            for arm in arms(self.grid)
            for candidate in arm.candidates.values()
            for path in candidate.deciding
        )
        return self._to_run(deciding)

    @property
    def cells_to_run(self) -> list[str]:
        """The paths of the cells that the table reads and the archive does not hold.

        Raises:
            InputError: deciding cells of a selection are missing, or give none.
        """
        if not self.study.select:
            return self._to_run(self.grid.cells)
        # Snakemake runs in the study's folder, and a test of this class elsewhere
        return self._to_run(confirmed(self.grid, choose(self.grid, self.folder)).cells)

    def _to_run(self, paths: Iterable[str]) -> list[str]:
        return [path for path in paths if path not in self.archived]

    @property
    def study_file(self) -> str:
        """The study file, from the study's folder."""
        return self.from_folder(self.file)

    @property
    def data(self) -> str:
        """The folder of the packed dataset, from the study's folder."""
        return self.from_folder(self.root / "data" / self.study.data.name)

    @property
    def others(self) -> dict[str, str]:
        """The study's further datasets by name: what each depends on, as a rule's parameter."""
        return {other.name: canonical(other.model_dump()) for other in self.study.evaluate.on}

    @property
    def published(self) -> str:
        """The published accuracies, from the study's folder."""
        return self.from_folder(self.root / "published" / "accuracies.csv")

    def from_folder(self, path: Path) -> str:
        """A path, relative to the study's folder."""
        return os.path.relpath(path, os.path.realpath(self.folder))

    def hash(self, path: str) -> str:
        """The hash of a cell's configuration."""
        return self.grid.cells[path].hash


def load(file: Path, config: dict[str, Any], root: Path, *, main: bool) -> Plan:
    """Read the study of a Snakemake run.

    Args:
        file: the study file.
        config: Snakemake's configuration: the file's values, and ``quick``.
        root: folder of the project.
        main: whether this is Snakemake's main process, which compares the file with the
            configuration, writes the file of a quick study and checks the records of finished
            cells. Its jobs need not: they are many, and the grid may be large.

    Raises:
        InputError: the study is wrong or is not the configuration, or a file of the results is
            damaged or of other parameters.
    """
    source = os.path.relpath(file)
    study = load_study(Path(source))
    values = {key: value for key, value in config.items() if key != "quick"}
    if main and parse_study(values, source) != study:
        raise InputError(
            f"{source}: the jobs read this file alone: "
            "write there what --config or another --configfile says"
        )
    if config.get("quick"):
        # a study of its own: its jobs read it from its own folder
        study = shrink(study)
        file = root / "results" / study.study / "study.yaml"
        if main:
            write(file, yaml.safe_dump(study.model_dump(mode="json")))
    grid = Grid(study)
    folder = root / "results" / study.study
    if main:
        check(grid, folder)
    return Plan(root, Path(os.path.abspath(file)), grid, stand_ins(grid, folder))
