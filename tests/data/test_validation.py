"""The images to validate on: which they are, and that nothing is trained on them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import cells, with_values
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from eqco.data.packed import dataset_hash, load, read_manifest
from eqco.data.validation import to_validate
from eqco.data.views import Views
from eqco.errors import InputError
from eqco.evaluation.features import extract
from eqco.evaluation.knn import knn
from eqco.evaluation.linear import linear
from eqco.evaluation.logistic import linear_lbfgs
from eqco.networks.encoder import Encoder
from eqco.store.cells import SavedEncoder
from eqco.study.datasets import Digits
from eqco.study.load import parse_study
from eqco.study.protocols import KNN, Linear, LinearLBFGS

CPU = torch.device("cpu")


def taken(labels, count: int) -> torch.Tensor:
    return to_validate(torch.as_tensor(labels), Digits(kind="digits", validation=count))


@given(
    sizes=st.lists(st.integers(2, 60), min_size=2, max_size=8),
    share=st.floats(0.1, 0.6),
    seed=st.integers(0, 99),
)
def test_classes_are_represented_as_in_scikit_learns_stratified_split(sizes, share, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    count = max(int(share * len(labels)), len(sizes))
    if count > len(labels) - len(sizes):
        return  # more than scikit-learn would draw
    found = taken(labels, count).numpy()
    _, theirs = train_test_split(labels, test_size=count, stratify=labels, random_state=0)
    ours, theirs = (np.bincount(chosen, minlength=len(sizes)) for chosen in (labels[found], theirs))
    assert ours.sum() == count
    # 1 is not always possible where fewer images are a part of more (Balinski and Young 1982)
    assert abs(ours - theirs).max() < 3
    assert abs(ours - count * np.array(sizes) / len(labels)).max() < 2
    fewer = taken(labels, count - 1).numpy()
    assert fewer.sum() == count - 1
    assert not (fewer & ~found).any()


def test_the_images_are_the_same_on_every_machine():
    chosen = taken([0, 1, 2] * 4, 6).nonzero().flatten().tolist()
    assert chosen == [0, 4, 5, 7, 8, 9]


@pytest.mark.parametrize("count", [9, 10, 11])
def test_a_class_without_a_training_image_is_an_error(count):
    message = rf"^data.validation: {count}: of 10 training images it must leave each of the 2 "
    with pytest.raises(InputError, match=message):
        taken([0, 1] * 5, count)


def test_without_the_key_nothing_is_taken():
    assert not to_validate(torch.zeros(5, dtype=torch.int64), Digits(kind="digits")).any()


def test_every_epoch_visits_the_images_that_are_left(study_with, digits):
    study = study_with({"data.validation": 297})
    views = Views(
        *(digits, study.data, study.augment),
        **{"batch": 100, "views": 2, "epochs": 2, "seed": 0, "device": CPU},
    )
    left = (~to_validate(load(digits, "train")["labels"], study.data)).nonzero().flatten()
    assert views.steps_per_epoch == 10
    for epoch in range(2):
        visited = torch.cat([views.visit(10 * epoch + i) for i in range(10)])
        assert torch.equal(visited.sort().values, left)
    with pytest.raises(InputError, match=r"pretrain.batch: 1001: .* has 1000 training images"):
        Views(digits, study.data, study.augment, batch=1001, views=2, epochs=1, seed=0, device=CPU)


@pytest.fixture(scope="module")
def features(digits, tiny_values):
    """Features of an untrained encoder, with and without validation images."""
    manifest, found = read_manifest(digits), []
    for changes in ({}, {"data.validation": 200}):
        study = parse_study(with_values(tiny_values, changes), "tiny.yaml")
        torch.manual_seed(0)
        weights = Encoder(study.network, channels=1).state_dict()
        config = study.resolve(next(iter(cells(study).values())))
        found.append(
            extract(SavedEncoder(config, dataset_hash(manifest), weights), digits, device=CPU)
        )
    return found


def test_features_of_the_training_images_are_divided(features, digits):
    whole, divided = features
    assert whole.validation is None
    mask = taken(load(digits, "train")["labels"], 200)
    torch.testing.assert_close(divided.train, whole.train[~mask])
    torch.testing.assert_close(divided.validation, whole.train[mask])
    assert torch.equal(divided.train_labels, whole.train_labels[~mask])
    assert torch.equal(divided.validation_labels, whole.train_labels[mask])
    assert torch.equal(divided.test_labels, whole.test_labels)


@pytest.mark.parametrize(
    "protocol",
    [
        lambda features: knn(features, KNN(k=7, ks=[3]), chunk=300),
        lambda features: linear(features, Linear(lrs=[1, 30], epochs=3, drops=[2]), seed=0),
        lambda features: linear_lbfgs(features, LinearLBFGS(iterations=20), 0),
    ],
    ids=["knn", "linear", "linear-lbfgs"],
)
def test_an_accuracy_on_validation_images_is_one_with_them_as_test_images(features, protocol):
    divided = features[1]
    none = {"validation": None, "validation_labels": None}
    test = protocol(replace(divided, **none))
    validation = protocol(
        replace(divided, test=divided.validation, test_labels=divided.validation_labels, **none)
    )
    expected = {**test, **{f"{name}@validation": value for name, value in validation.items()}}
    assert protocol(divided) == pytest.approx(expected)
