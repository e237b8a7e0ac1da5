"""Each protocol against an independent implementation, and that the backbone stays frozen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import cells
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from eqco.data.packed import dataset_hash, read_manifest
from eqco.data.validation import in_proportion
from eqco.errors import InputError
from eqco.evaluation import features as of_images
from eqco.evaluation.features import Features, extract, percent, unchanged
from eqco.evaluation.geometry import geometry
from eqco.evaluation.knn import knn
from eqco.evaluation.linear import Probes, linear, with_one
from eqco.evaluation.logistic import linear_lbfgs
from eqco.networks.encoder import Encoder
from eqco.runtime.seeds import draw_seed
from eqco.store.cells import SavedEncoder
from eqco.study.protocols import KNN, Linear, LinearLBFGS


@pytest.fixture(scope="module")
def features() -> Features:
    """Five overlapping classes in 12 dimensions of different scale."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(5, 12))
    labels = random.integers(0, 5, 900)
    x = (centres[labels] + random.normal(size=(900, 12))) * np.geomspace(0.1, 10, 12) + 3
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(labels)
    return Features(x[:600], y[:600], x[600:], y[600:], classes=5)


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_linear_lbfgs_is_scikit_learns_logistic_regression(features, l2):
    (found,) = linear_lbfgs(features, LinearLBFGS(l2=l2, iterations=500), 0).values()
    mean, std = features.train.mean(0), features.train.std(0)
    train, test = ((x - mean) / std for x in (features.train, features.test))
    # scikit-learn weighs the sum of losses with C: C = 1/(l2 · M)
    model = LogisticRegression(C=1 / (l2 * len(train)), tol=1e-8, max_iter=5000)
    model.fit(train.numpy(), features.train_labels.numpy())
    expected = 100 * model.score(test.numpy(), features.test_labels.numpy())
    assert found == pytest.approx(expected, abs=0.34)  # one test point of 300


def test_few_labels_are_a_fit_on_so_many_images_of_each_class(features):
    """The standardisation is by all training images, and the full fit is as without the key."""
    params = LinearLBFGS(l2=1e-2, iterations=500, labels=[0.05, 0.2])
    found = linear_lbfgs(features, params, 3)
    assert list(found) == ["linear-lbfgs", "linear-lbfgs-labels~0.05", "linear-lbfgs-labels~0.2"]
    assert (
        found["linear-lbfgs"]
        == linear_lbfgs(features, LinearLBFGS(l2=1e-2, iterations=500), 0)["linear-lbfgs"]
    )
    mean, std = features.train.mean(0), features.train.std(0)
    train, test = ((x - mean) / std for x in (features.train, features.test))
    order = in_proportion(features.train_labels, draw_seed(3, "labels", 0))
    for share, count in ((0.05, 30), (0.2, 120)):
        rows, labels = order[:count], features.train_labels[order[:count]]
        model = LogisticRegression(C=1 / (1e-2 * count), tol=1e-8, max_iter=5000)
        model.fit(train[rows].numpy(), labels.numpy())
        expected = 100 * model.score(test.numpy(), features.test_labels.numpy())
        assert found[f"linear-lbfgs-labels~{share}"] == pytest.approx(expected, abs=0.34)
        whole = features.train_labels.bincount() * share
        assert ((labels.bincount(minlength=5) - whole).abs() <= 1).all()
    assert linear_lbfgs(features, params, 4) != found  # other images
    assert linear_lbfgs(features, params, 3) == found


def test_labels_that_leave_a_class_without_one_are_refused(features):
    params = LinearLBFGS(labels=[0.005])
    with pytest.raises(InputError, match=r"labels: 0.005: of 600 training images it must have one"):
        linear_lbfgs(features, params, 0)


@pytest.mark.parametrize("k", [1, 7, 200])
@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
def test_knn_is_scikit_learns_with_these_weights(features, k, temperature):
    (found,) = knn(features, KNN(k=k, temperature=temperature), chunk=64).values()
    model = KNeighborsClassifier(
        n_neighbors=k,
        metric="cosine",
        weights=lambda distance: np.exp((1 - distance) / temperature),
    )
    model.fit(features.train.numpy(), features.train_labels.numpy())
    expected = 100 * model.score(features.test.numpy(), features.test_labels.numpy())
    assert found == pytest.approx(expected, abs=0.34)


def test_several_k_in_one_pass_are_each_what_it_is_alone(features):
    found = knn(features, KNN(k=200, ks=[1, 20, 50]))
    assert list(found) == ["knn", "knn-k~1", "knn-k~20", "knn-k~50"]
    for name, k in KNN(k=200, ks=[1, 20, 50]).votes.items():
        assert knn(features, KNN(k=k))["knn"] == found[name]


def test_knn_of_more_neighbours_than_images_takes_all(features):
    few = Features(
        features.train[:50],
        features.train_labels[:50],
        features.test,
        features.test_labels,
        features.classes,
    )
    assert knn(few, KNN(k=200)) == knn(few, KNN(k=50))


def test_linear_learns_and_repeats(features):
    mean, std = features.train.mean(0), features.train.std(0)
    scaled = replace(
        features, train=(features.train - mean) / std, test=(features.test - mean) / std
    )
    params = Linear(lr=0.1)
    first = linear(scaled, params, seed=0)
    assert first == linear(scaled, params, seed=0)
    assert first["linear"] > linear_lbfgs(scaled, LinearLBFGS(), 0)["linear-lbfgs"] - 3
    assert first != linear(scaled, Linear(lr=0.1, epochs=1), seed=0)


def test_linear_is_torchs_sgd_on_a_linear_layer(features):
    params = Linear(lr=0.02, epochs=12, batch=100, drops=[4, 8])
    generator = torch.Generator().manual_seed(3)
    layer = torch.nn.Linear(12, 5)
    layer.weight.data = 0.01 * torch.randn(5, 12, generator=generator)
    layer.bias.data.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), lr=params.lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, params.drops)
    for _ in range(params.epochs):
        for rows in torch.randperm(600, generator=generator).split(params.batch):
            loss = torch.nn.functional.cross_entropy(
                layer(features.train[rows]), features.train_labels[rows]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    expected = percent(layer(features.test).argmax(dim=1) == features.test_labels)
    assert linear(features, params, seed=3)["linear"] == pytest.approx(expected, abs=0.34)


def test_a_batch_is_those_rows_of_the_epochs_order_to_the_byte(features):
    """An earlier form, by which committed cells were rated, put the whole epoch in order first."""
    params = Linear(lr=0.5, epochs=30, batch=64, drops=[20])
    found = linear(features, params, seed=1)
    remembered = features.correct["linear"]
    generator = torch.Generator().manual_seed(1)
    probes = Probes(params, 12, 5, generator, torch.device("cpu"))
    target = torch.nn.functional.one_hot(features.train_labels, 5).float()
    for epoch in range(params.epochs):
        order = torch.randperm(600, generator=generator)
        batches = (x[order].split(params.batch) for x in (with_one(features.train), target))
        for x, y in zip(*batches, strict=True):
            probes.step(x, y, epoch)
    assert probes.accuracies(features) == found
    assert torch.equal(features.correct["linear"], remembered)


def test_several_rates_are_probed_at_once_each_as_if_alone(features):
    rates = [0.003, 0.01, 0.3]
    found = linear(features, Linear(lrs=rates, epochs=9, drops=[6]), seed=0)
    assert list(found) == ["linear-lr~0.003", "linear-lr~0.01", "linear-lr~0.3"]
    for lr, value in zip(rates, found.values(), strict=True):
        alone = linear(features, Linear(lr=lr, epochs=9, drops=[6]), seed=0)
        assert value == pytest.approx(alone["linear"], abs=0.34)  # one test point of 300
    assert len(set(found.values())) == 3


def test_linear_drops_the_rate_to_a_tenth(features):
    """After ten drops the layer stands still: more epochs change nothing."""
    drops = list(range(1, 11))
    short, long = (Linear(lr=0.01, epochs=epochs, drops=drops) for epochs in (11, 30))
    assert linear(features, short, seed=0) == linear(features, long, seed=0)


def test_accuracies_are_in_percent_and_the_images_that_are_right_are_remembered():
    labels = torch.tensor([0, 1, 2, 0])
    rated = Features(torch.eye(4), labels, torch.eye(4), labels, 4)
    assert rated.accuracies("x", torch.eye(4)) == {"x": 75}
    assert rated.correct["x"].tolist() == [True, True, True, False]


@pytest.fixture
def saved(tiny, digits) -> SavedEncoder:
    torch.manual_seed(0)
    encoder = Encoder(tiny.network, channels=1)
    encoder(torch.rand(64, 1, 8, 8))  # batch-norm statistics that are not the initial ones
    config = tiny.resolve(next(iter(cells(tiny).values())))
    return SavedEncoder(config, dataset_hash(read_manifest(digits)), encoder.state_dict())


def test_the_geometry_of_an_encoder_is_the_same_each_time(saved, tiny, digits):
    cpu = torch.device("cpu")
    features = extract(saved, digits, device=cpu)
    numbers = geometry(features, saved, tiny.data, digits, cpu)
    assert numbers == geometry(features, saved, tiny.data, digits, cpu)
    assert 0 < numbers["alignment"] < 4
    assert -8 < numbers["uniformity"] < 0
    assert 1 < numbers["rank_me"] <= 256


def test_features_are_the_frozen_backbones(saved, tiny, digits):
    before = {name: tensor.clone() for name, tensor in saved.tensors.items()}
    features = extract(saved, digits, device=torch.device("cpu"))
    assert features.train.shape == (1297, 256)
    assert features.test.shape == (500, 256)
    assert features.classes == 10
    for name, tensor in saved.tensors.items():
        assert torch.equal(tensor, before[name])
    # in eval mode the features of an image do not depend on its batch
    from eqco.data.packed import load

    encoder = Encoder(tiny.network, channels=1)
    encoder.load_state_dict(saved.tensors)
    manifest = read_manifest(digits)
    one = load(digits, "test")["images"][7:8].float() / 255
    one = (one - manifest["mean"][0]) / manifest["std"][0]
    torch.testing.assert_close(encoder.backbone.eval()(one)[0], features.test[7])


def test_features_are_the_same_bytes_whatever_the_images_per_pass(saved, digits, monkeypatch):
    """Committed cells were rated on passes of 1,024 images."""
    cpu = torch.device("cpu")
    found = extract(saved, digits, device=cpu)
    for batch in (1024, 100):
        monkeypatch.setattr(of_images, "BATCH", batch)
        others = extract(saved, digits, device=cpu)
        assert torch.equal(others.train, found.train)
        assert torch.equal(others.test, found.test)


def test_a_backbone_that_changes_is_noticed():
    """A batch norm in train mode changes its running statistics."""
    norm = torch.nn.BatchNorm2d(3)
    with unchanged(norm):
        norm.eval()(torch.rand(2, 3, 4, 4))
    with pytest.raises(AssertionError, match="running_mean has changed"), unchanged(norm):
        norm.train()(torch.rand(2, 3, 4, 4))


def test_features_of_another_dataset_are_refused(saved, digits):
    other = SavedEncoder(saved.config, "0:0", saved.tensors)
    with pytest.raises(InputError, match="is another dataset than the encoder was trained on"):
        extract(other, digits, device=torch.device("cpu"))
