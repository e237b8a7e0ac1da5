"""Protocols on further datasets: what may be named, and what it leaves as it is."""

import pytest

from eqco.errors import InputError
from eqco.store.cells import settings_of
from eqco.study.grid import Grid
from eqco.study.quick import shrink

GREY = {"kind": "fashion-mnist"}


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ([{"kind": "digits"}], "evaluate.on.0.name: digits: must be another name than each of"),
        ([GREY, GREY], "evaluate.on.1.name: fashion-mnist: must be another name than each of"),
        (
            [{"kind": "torchvision", "name": "cifar10"}],
            "evaluate.on.0.name: cifar10: its images have 3 channels, the encoder takes 1",
        ),
        (
            [{"kind": "image-folder", "name": "key", "path": "a", "size": 8}],
            "evaluate.on.0.name: key: must be another name",
        ),
        ([{**GREY, "validation": 5}], "evaluate.on.0.validation: 5: must be left out"),
        ([{"kind": "stl"}], "evaluate.on.0: "),
    ],
)
def test_further_datasets_are_others(on, message, study_with):
    with pytest.raises(InputError) as caught:
        study_with({"evaluate.on": on})
    assert str(caught.value).startswith(f"tiny.yaml: {message}")
    assert "\n" not in str(caught.value)


def test_further_datasets_change_neither_cells_nor_what_is_rated_already(tiny, study_with):
    study = study_with({"evaluate.on": [{**GREY, "root": "here"}]})
    assert [one.hash for one in Grid(study).cells.values()] == [
        one.hash for one in Grid(tiny).cells.values()
    ]
    for name in ("linear.json", "knn.json"):
        assert settings_of(study.evaluate, name) == settings_of(tiny.evaluate, name)
    elsewhere = study_with({"evaluate.on": [{**GREY, "root": "there"}]})
    settings = settings_of(study.evaluate, "transfer.json")
    assert settings == settings_of(elsewhere.evaluate, "transfer.json")
    assert study.protocols == [*tiny.protocols, *(f"{p}@fashion-mnist" for p in tiny.protocols)]
    tune = {"augment": {"flip": 0.5}}
    tuned = study_with({"evaluate.on": [GREY], "evaluate.finetune": tune})
    added = ["finetune", *(f"{p}@fashion-mnist" for p in tiny.protocols)]
    assert tuned.protocols == [*tiny.protocols, *added]
    assert settings_of(tuned.evaluate, "linear.json") == settings_of(tiny.evaluate, "linear.json")
    assert shrink(tuned).evaluate.finetune.batch == 16
    quick = shrink(study)
    assert quick.evaluate.on[0].train_images == 512
