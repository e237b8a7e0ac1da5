"""Study files at random: a valid one is a grid of cells that run, any other is one clear line."""

import copy
import re
from typing import Any

import pytest
import torch
import yaml
from helpers import TINY, cells
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eqco.errors import InputError
from eqco.methods import build
from eqco.networks.encoder import Encoder
from eqco.runtime.files import canonical
from eqco.study.load import load_study, parse_study
from eqco.study.methods import METHODS
from eqco.study.study import Study, config_hash
from eqco.training.objective import objective

VALUES = yaml.safe_load(TINY.read_text())
PATH = re.compile(r"[a-z_]+~[A-Za-z0-9.+-]+(/[a-z_]+~[A-Za-z0-9.+-]+)*")

WITHS = [
    None,
    {"pretrain.sampling": ["shared", "independent"], "augment.crop": [[0.2, 1], [0.5, 1]]},
    [{"pretrain.lr": [0.1], "pretrain.weight_decay": [0]}, {"network.projector": [[16, 8], [8]]}],
]

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats()
    | st.sampled_from(["", "eqco", "inf", ".nan", "../x", "simo", "; rm -rf x", "$(id)", "1e-4"])
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Where something stands in nested values: the way to each key and item."""
    found = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        found.append((*path, key))
        if isinstance(inner, dict | list):
            found += places(inner, (*path, key))
    return found


@st.composite
def damaged(draw) -> Any:
    """The tiny study with some of its values replaced by anything, removed, or added to."""
    study = copy.deepcopy(VALUES)
    study["grid"][0]["with"] = draw(st.sampled_from([{"pretrain.ema": [0.9]}, [{}], {}]))
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(places(study)))
        inner = study
        for key in way:
            inner = inner[key]
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                inner[last] = draw(anything)
            case "remove":
                del inner[last]
            case "add" if isinstance(inner, dict):
                inner[draw(st.text(max_size=6))] = draw(anything)
        if not study:
            break
    return study


def check_cells(study: Study) -> None:
    """Each is unique, has a path that is a path and no more, and a configuration of its own."""
    by_path = cells(study)
    hashes = {config_hash(study.resolve(cell)) for cell in by_path.values()}
    assert len(hashes) == len(by_path) >= 1
    for path in by_path:
        assert PATH.fullmatch(path), path


@given(damaged() | anything)
@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
def test_any_values_are_a_grid_or_one_clear_line(values):
    try:
        study = parse_study(values, "any.yaml")
        check_cells(study)
    except InputError as error:
        line = str(error)
        if not line.startswith("any.yaml: ") and not line.startswith("study: "):
            pytest.fail(line)
        if "\n" in line or len(line) > 1000:
            pytest.fail(line)
    else:
        # what is read back from the hash's own text is the same configuration
        assert canonical(study.model_dump(mode="json"))


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_is_a_study_or_one_clear_line(tmp_path, content):
    path = tmp_path / "any.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_study(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@st.composite
def valid(draw) -> dict[str, Any]:
    """A study that is valid by what params/README.md says."""
    study = copy.deepcopy(VALUES)
    batches = draw(st.lists(st.sampled_from([4, 6, 12, 32]), min_size=1, max_size=2, unique=True))
    symmetric = draw(st.booleans())
    methods = [name for name, entry in METHODS.items() if entry.symmetric or not symmetric]
    queue = draw(st.sampled_from([8, 40]))
    method = draw(st.sampled_from(methods))
    most = min(METHODS[method].candidates(n, queue) or 64 for n in batches)
    losses = [None, ["info-nce"], ["dclw", "dual-temperature"], ["dcl-rolled", "dcl-by-negatives"]]
    loss = draw(st.sampled_from(losses))
    margins = (
        [0]
        if loss and "dclw" in loss
        else draw(st.lists(st.sampled_from([0, 0.1, -0.2, "eqco", "inf"]), min_size=1, unique=True))
    )
    study["pretrain"] |= {
        "queue": queue if method in ("moco", "nnclr") else None,
        "symmetric": symmetric,
        "sampling": draw(st.sampled_from(["shared", "independent"])),
    }
    study["network"]["batch_norm_groups"] = draw(st.sampled_from([1, 2]))
    study["grid"] = [
        {
            "methods": [method],
            "negatives": draw(st.lists(st.integers(1, most), min_size=1, max_size=3, unique=True)),
            "margins": margins,
            "losses": loss,
            "batches": batches,
            "temperatures": draw(st.sampled_from([None, [0.1, 1.0]])),
            "with": draw(st.sampled_from(WITHS)),
            "seeds": draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=2, unique=True)),
        }
    ]
    return study


@given(valid(), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_any_valid_cell_takes_a_step(values, seed):
    study = parse_study(values, "valid.yaml")
    check_cells(study)
    generator = torch.Generator().manual_seed(seed)
    cell = list(cells(study).values())[seed % len(cells(study))]
    study = study.of(cell)
    model = build(cell, Encoder(study.network, channels=1), study.pretrain)
    views = torch.rand(2, cell.batch, 1, 8, 8, generator=generator)
    positive, negatives = model(*views, generator)
    assert negatives.shape == (len(positive), cell.negatives)
    loss = objective(cell, study.loss)(positive, negatives).mean()
    loss.backward()
    model.after_step()
    assert loss.isfinite()
