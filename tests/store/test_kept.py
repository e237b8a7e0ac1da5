"""What is kept of a study's cells stands in for them, as long as it is of this study."""

import json
import shutil

import pytest
from helpers import cells

from eqco.errors import InputError
from eqco.report import tables
from eqco.store import archive as kept
from eqco.store.cells import evaluations, settings_of, write_json
from eqco.study.grid import Grid
from eqco.study.study import Study


@pytest.fixture
def results(tiny: Study, tmp_path):
    """A study's folder with the files of all its cells."""
    for number, (path, cell) in enumerate(Grid(tiny).cells.items()):
        folder = tmp_path / "cells" / path
        identity = {"config_hash": cell.hash, "encoder": f"{number}"}
        write_json(folder / "pretrain.json", {**identity, "seconds": 0.1 + 0.2, "failed": None})
        for name in evaluations(tiny.evaluate):
            accuracy = dict.fromkeys(tiny.evaluate.protocols, 50.0 + number)
            settings = settings_of(tiny.evaluate, name)
            write_json(folder / name, {**identity, "settings": settings, "accuracy": accuracy})
    return tmp_path


def test_what_is_kept_reads_like_the_folders(tiny, results):
    before, summaries = tables.read_study(Grid(tiny), results)
    assert kept.keep(Grid(tiny), results) == 8
    assert kept.stand_ins(Grid(tiny), results) == {}  # the folders are there
    shutil.rmtree(results / "cells")
    assert list(kept.stand_ins(Grid(tiny), results)) == list(cells(tiny))
    after, kept_summaries = tables.read_study(Grid(tiny), results)
    assert after.equals(before)
    assert json.dumps(kept_summaries) == json.dumps(summaries)  # to the order of their keys
    once = (results / kept.KEPT).read_bytes()
    assert kept.keep(Grid(tiny), results) == 8
    assert (results / kept.KEPT).read_bytes() == once
    assert once.count(b"\n") == 8


def test_unfinished_cells_are_left_out_and_run(tiny, results):
    first, second, *_ = cells(tiny)
    (results / "cells" / first / "knn.json").unlink()
    assert kept.keep(Grid(tiny), results) == 7
    assert set(cells(tiny)) - set(kept.finished(Grid(tiny), results)) == {first}
    shutil.rmtree(results / "cells" / second)
    assert list(kept.stand_ins(Grid(tiny), results)) == [second]
    shutil.rmtree(results / "cells")
    with pytest.raises(InputError, match=rf"{first}/pretrain\.json: cannot be read: No such file"):
        tables.read_study(Grid(tiny), results)


@pytest.mark.parametrize(
    ("changes", "left"),
    [({"alpha": 512}, 4), ({"temperature": 0.1}, 0), ({"evaluate.knn.k": 7}, 0)],
)
def test_nothing_stands_in_for_a_cell_of_other_parameters(tiny, study_with, results, changes, left):
    kept.keep(Grid(tiny), results)
    shutil.rmtree(results / "cells")
    changed = study_with(changes)
    assert len(kept.stand_ins(Grid(changed), results)) == left
    assert kept.keep(Grid(changed), results) == left


@pytest.mark.parametrize(
    "damage", [lambda line: line[:50], lambda line: "[]", lambda line: "{}", lambda line: "\0"]
)
def test_a_damaged_line_is_named(tiny, results, damage):
    kept.keep(Grid(tiny), results)
    path = results / kept.KEPT
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], damage(lines[1]), *lines[2:]]))
    with pytest.raises(InputError, match=r"cells\.jsonl: line 2: is damaged; bring") as error:
        kept.stand_ins(Grid(tiny), results)
    assert "\n" not in str(error.value)
