"""Evaluation of a frozen backbone: two linear protocols and weighted kNN.

Every protocol works on features of the clean images, computed once with the backbone in eval mode.
docs/protocols.md says how each differs from others' protocols of the same name.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from eqco.augment import normalise
from eqco.data import dataset_hash, load, read_manifest
from eqco.errors import InputError
from eqco.networks import Encoder
from eqco.params import KNN, Linear, LinearLBFGS, Network
from eqco.results import SavedEncoder


@dataclass(frozen=True)
class Features:
    """Features (M, F) float32 and labels (M,) of both splits, and the number of classes."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    classes: int


def linear_lbfgs(features: Features, params: LinearLBFGS) -> float:
    """Multinomial logistic regression on standardised features, by full-batch L-BFGS.

    Minimises mean cross-entropy + l2 · ½‖W‖², in float64; the bias is not penalised.

    Returns:
        Test accuracy in percent.
    """
    mean, std = features.train.mean(0), features.train.std(0).clamp(min=1e-6)
    train, test = (((x - mean) / std).double() for x in (features.train, features.test))
    weight = train.new_zeros(features.classes, train.shape[1], requires_grad=True)  # (Y, F)
    bias = train.new_zeros(features.classes, requires_grad=True)  # (Y,)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=params.iterations,
        tolerance_grad=1e-6,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(train, weight, bias), features.train_labels)
        loss = loss + 0.5 * params.l2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    return accuracy(F.linear(test, weight, bias), features.test_labels)


@torch.no_grad()
def linear(features: Features, params: Linear, seed: int) -> dict[str, float]:
    """A linear layer by SGD as in MoCo (arXiv 1911.05722, section 4.1), on fixed features.

    Weights start at N(0, 0.01²) and the bias at 0; momentum 0.9, no weight decay, mini-batches in a
    random order, the rate divided by ten at each of ``drops``. Layers for several rates are trained
    side by side, on the same mini-batches; each is what it would be alone.

    Returns:
        Test accuracy in percent after the last epoch, of each of ``params.probes``.
    """
    classes, device = features.classes, features.train.device
    generator = torch.Generator().manual_seed(seed)
    # the bias is the weight of a feature that is always 1
    train, test = (F.pad(x, (0, 1), value=1.0) for x in (features.train, features.test))
    target = F.one_hot(features.train_labels, classes).to(train.dtype)  # (M, Y)
    start = 0.01 * torch.randn(classes, train.shape[1] - 1, generator=generator)  # (Y, F)
    weight = F.pad(start, (0, 1)).repeat(len(params.probes), 1).to(device)  # (R Y, F + 1)
    velocity = torch.zeros_like(weight)
    rates = torch.tensor(list(params.probes.values()), device=device)
    rate = rates.repeat_interleave(classes)[:, None]  # (R Y, 1)
    for epoch in range(params.epochs):
        rate = rate * 0.1 ** params.drops.count(epoch)
        order = torch.randperm(len(train), generator=generator).to(device)
        batches = (x[order].split(params.batch) for x in (train, target))
        for x, y in zip(*batches, strict=True):  # (B, F + 1), (B, Y)
            scores = (x @ weight.T).view(len(x), -1, classes)  # (B, R, Y)
            error = scores.softmax(dim=2).sub_(y[:, None])  # the gradient of the cross-entropy
            velocity.mul_(0.9).addmm_(error.flatten(1).T, x, alpha=1 / len(x))
            weight.addcmul_(velocity, rate, value=-1)
    scores = (test @ weight.T).view(len(test), -1, classes).transpose(0, 1)  # (R, M, Y)
    return {
        name: accuracy(score, features.test_labels)
        for name, score in zip(params.probes, scores, strict=True)
    }


def knn(features: Features, params: KNN, chunk: int = 1024) -> float:
    """Weighted k-nearest-neighbour vote (arXiv 1805.01978, section 3.4).

    The k training images of largest cosine similarity s vote for their class with weight
    exp(s/T); k is at most the training images there are.

    Returns:
        Test accuracy in percent.
    """
    bank = F.normalize(features.train)  # (M, F)
    k = min(params.k, len(bank))
    votes = []
    for queries in F.normalize(features.test).split(chunk):
        similarity, neighbour = (queries @ bank.T).topk(k)  # (B, k)
        weight = (similarity / params.temperature).exp()
        vote = weight.new_zeros(len(queries), features.classes)  # (B, Y)
        votes.append(vote.scatter_add_(1, features.train_labels[neighbour], weight))
    return accuracy(torch.cat(votes), features.test_labels)


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Percent of the rows (M, Y) whose largest score is the label's (M,)."""
    return 100 * float((scores.argmax(dim=1) == labels).double().mean())


def extract(saved: SavedEncoder, data: Path, *, device: torch.device) -> Features:
    """Features of the clean images of both splits, by the backbone in eval mode.

    Raises:
        InputError: when the encoder was trained on another dataset than the one in ``data``.
        AssertionError: when this changed a parameter or a buffer of the backbone.
    """
    study_data, manifest = saved.config["data"], read_manifest(data)
    if saved.dataset != dataset_hash(manifest):
        raise InputError(f"{data}: is another dataset than the encoder was trained on")
    splits = {
        "train": load(data, "train", study_data.get("train_images")),
        "test": load(data, "test"),
    }
    network = Network.model_validate(saved.config["network"])
    encoder = Encoder(network, channels=splits["train"]["images"].shape[1])
    encoder.load_state_dict(saved.tensors)
    backbone = encoder.backbone.to(device).eval().requires_grad_(False)
    backbone.to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(manifest[name], device=device) for name in ("mean", "std"))

    def features(images: Tensor) -> Tensor:
        parts = [
            backbone(normalise(batch.to(device).float() / 255, mean, std))
            for batch in images.split(1024)
        ]
        return torch.cat(parts)  # (M, F)

    extracted = Features(
        train=features(splits["train"]["images"]),
        train_labels=splits["train"]["labels"].to(device),
        test=features(splits["test"]["images"]),
        test_labels=splits["test"]["labels"].to(device),
        classes=len(manifest["classes"]),
    )
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor.cpu(), saved.tensors[f"backbone.{name}"]), f"{name} has changed"
    return extracted
