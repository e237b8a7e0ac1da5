"""Evaluation of a frozen backbone: two linear protocols and weighted kNN.

Protocols work on features of the clean images, computed once with the backbone in eval mode; the
linear one of MoCo, where a study asks for it, on views made anew in each epoch. docs/protocols.md
says how each differs from others' protocols of the same name.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqco.data.augmentation import normalise
from eqco.data.jpegs import Centres, in_workers
from eqco.data.packed import dataset_hash, images_of, load, read_manifest
from eqco.data.views import Views
from eqco.errors import InputError
from eqco.networks.encoder import Encoder
from eqco.runtime.ranks import gather, rank
from eqco.runtime.signals import Stop
from eqco.store.cells import SavedEncoder
from eqco.store.checkpoint import Checkpoints, State
from eqco.store.resume import Resumable, write_progress
from eqco.study.study import KNN, Linear, LinearLBFGS, Network


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

    Mini-batches in a random order; see ``Probes``.

    Returns:
        Test accuracy in percent after the last epoch, of each of ``params.probes``.
    """
    device = features.train.device
    generator = torch.Generator().manual_seed(seed)
    probes = Probes(params, features.train.shape[1], features.classes, generator, device)
    train = with_one(features.train)  # (M, F + 1)
    target = F.one_hot(features.train_labels, features.classes).to(train.dtype)  # (M, Y)
    for epoch in range(params.epochs):
        order = torch.randperm(len(train), generator=generator).to(device)
        batches = (x[order].split(params.batch) for x in (train, target))
        for x, y in zip(*batches, strict=True):  # (B, F + 1), (B, Y)
            probes.step(x, y, epoch)
    return probes.accuracies(features)


@torch.no_grad()
def linear_on_views(
    backbone: nn.Module,
    views: Views,
    features: Features,
    params: Linear,
    seed: int,
    *,
    checkpoints: Checkpoints | None = None,
    stop: Stop | None = None,
    progress: Path | None = None,
) -> dict[str, float]:
    """Train a linear layer like ``linear``, on features of new views in each epoch, as MoCo does.

    Each of several ranks takes its share of a mini-batch through the backbone. The last, smaller
    mini-batch of an epoch is dropped.

    Args:
        backbone: frozen.
        views: one view of each image, for all epochs.
        features: for the features of the test images.
        params: the protocol.
        seed: for the layers' weights.
        checkpoints: to resume from, and to write to after each epoch and if ``stop`` is set.
        stop: read after each step.
        progress: file for the progress, written after each epoch.

    Returns:
        Test accuracy in percent after the last epoch, of each of ``params.probes``.

    Raises:
        Interrupted: if ``stop`` was set; the state is saved.
    """
    generator = torch.Generator().manual_seed(seed)
    device = features.test.device
    probes = Probes(params, features.test.shape[1], features.classes, generator, device)
    labels = views.labels.to(device)
    resumable = Resumable(checkpoints, stop)
    if state := resumable.load():
        probes.restore(state)
    start, first_step = time.perf_counter(), probes.steps

    while probes.steps < views.steps:
        (view,) = views(probes.steps)  # (n, C, H, W)
        images = views.visit(probes.steps).to(device)  # (B,)
        target = F.one_hot(labels[images], features.classes)  # (B, Y)
        x = gather(backbone(view))  # (B, F)
        probes.step(with_one(x), target.to(x.dtype), probes.steps // views.steps_per_epoch)
        epoch, remaining = divmod(probes.steps, views.steps_per_epoch)
        if rank() == 0 and remaining == 0:
            print(f"linear: epoch {epoch}/{params.epochs}", flush=True)
            if progress:
                step_seconds = (time.perf_counter() - start) / (probes.steps - first_step)
                write_progress(
                    progress,
                    epoch=epoch,
                    epochs=params.epochs,
                    images_per_s=params.batch / step_seconds,
                    seconds=step_seconds * probes.steps,
                )
        resumable.after_step(probes.steps, views.steps, probes.state, due=remaining == 0)

    if checkpoints and rank() == 0:
        checkpoints.remove()
    return probes.accuracies(features)


class Probes:
    """Linear layers for several learning rates, trained side by side on the same mini-batches.

    Each is what it would be alone. Weights start at N(0, 0.01²) and the bias, the weight of a
    feature that is always 1, at 0; momentum 0.9, no weight decay, the rate divided by ten at each
    of ``drops``.
    """

    def __init__(
        self,
        params: Linear,
        width: int,
        classes: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self.params, self.classes = params, classes
        start = 0.01 * torch.randn(classes, width, generator=generator)  # (Y, F)
        self.weight = with_zero(start).repeat(len(params.probes), 1).to(device)  # (R Y, F + 1)
        self.velocity = torch.zeros_like(self.weight)
        self.steps = 0
        rates = torch.tensor(list(params.probes.values()), device=device)
        self.rate = rates.repeat_interleave(classes)[:, None]  # (R Y, 1)

    def step(self, x: Tensor, y: Tensor, epoch: int) -> None:
        """Learn from features with their 1 (B, F + 1) and one-hot labels (B, Y)."""
        rate = self.rate
        for _ in range(sum(drop <= epoch for drop in self.params.drops)):
            rate = rate * 0.1
        scores = (x @ self.weight.T).view(len(x), -1, self.classes)  # (B, R, Y)
        error = scores.softmax(dim=2).sub_(y[:, None])  # the gradient of the cross-entropy
        self.velocity.mul_(0.9).addmm_(error.flatten(1).T, x, alpha=1 / len(x))
        self.weight.addcmul_(self.velocity, rate, value=-1)
        self.steps += 1

    def state(self) -> State:
        """Everything the next step depends on."""
        return State(self.steps, {"weight": self.weight, "velocity": self.velocity}, {})

    def restore(self, state: State) -> None:
        """Continue from a saved state."""
        self.steps = state.step
        self.weight.copy_(state.tensors["weight"])
        self.velocity.copy_(state.tensors["velocity"])

    def accuracies(self, features: Features) -> dict[str, float]:
        """Test accuracy in percent of each of ``params.probes``."""
        test = with_one(features.test)
        scores = (test @ self.weight.T).view(len(test), -1, self.classes).transpose(0, 1)
        return {
            name: accuracy(score, features.test_labels)  # (M, Y)
            for name, score in zip(self.params.probes, scores, strict=True)
        }


def with_one(x: Tensor) -> Tensor:
    """(B, F + 1) of (B, F), for the bias."""
    return F.pad(x, (0, 1), value=1.0)


def with_zero(x: Tensor) -> Tensor:
    """(B, F + 1) of (B, F), for the bias' start."""
    return F.pad(x, (0, 1))


def knn(features: Features, params: KNN, chunk: int = 1024) -> dict[str, float]:
    """Weighted k-nearest-neighbour vote (arXiv 1805.01978, section 3.4).

    The k training images of largest cosine similarity s vote for their class with weight
    exp(s/T); k is at most the training images there are.

    Returns:
        Test accuracy in percent of each of ``params.votes``.
    """
    bank = F.normalize(features.train)  # (M, F)
    scores: dict[str, list[Tensor]] = {name: [] for name in params.votes}
    for queries in F.normalize(features.test).split(chunk):
        most = min(max(params.votes.values()), len(bank))
        similarity, neighbour = (queries @ bank.T).topk(most)  # (B, k), the nearest first
        weight = (similarity / params.temperature).exp()
        label = features.train_labels[neighbour]
        for name, k in params.votes.items():
            votes = weight.new_zeros(len(queries), features.classes)  # (B, Y)
            scores[name].append(votes.scatter_add_(1, label[:, :k], weight[:, :k]))
    return {name: accuracy(torch.cat(s), features.test_labels) for name, s in scores.items()}


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Percent of the rows (M, Y) whose largest score is the label's (M,)."""
    return 100 * float((scores.argmax(dim=1) == labels).double().mean())


def frozen_backbone(saved: SavedEncoder, channels: int) -> nn.Module:
    """The backbone of a saved encoder in eval mode, without gradients."""
    network = Network.model_validate(saved.config["network"])
    encoder = Encoder(network, channels)
    encoder.load_state_dict(saved.tensors)
    backbone = encoder.backbone.eval().requires_grad_(False)
    return backbone.to(memory_format=torch.channels_last)


def check_unchanged(backbone: nn.Module, saved: SavedEncoder) -> None:
    """Raise AssertionError when a parameter or a buffer is not what was saved."""
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor.cpu(), saved.tensors[f"backbone.{name}"]), f"{name} has changed"


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
    backbone = frozen_backbone(saved, channels=len(manifest["mean"])).to(device)
    mean, std = (torch.tensor(manifest[name], device=device) for name in ("mean", "std"))

    def features(split: str) -> Tensor:
        images = images_of(splits[split], study_data)
        batches: Iterable[Tensor]
        if isinstance(images, Tensor):
            batches = images.split(1024)
        else:
            centres = Centres(images, batch=256)
            batches = in_workers(centres, range(len(centres)), device)
        parts = [
            backbone(normalise(batch.to(device).float() / 255, mean, std)) for batch in batches
        ]
        return torch.cat(parts)  # (M, F)

    extracted = Features(
        train=features("train"),
        train_labels=splits["train"]["labels"].to(device),
        test=features("test"),
        test_labels=splits["test"]["labels"].to(device),
        classes=len(manifest["classes"]),
    )
    check_unchanged(backbone, saved)
    return extracted
