"""The linear protocol of MoCo: SGD on fixed features, or on features of new views each epoch."""

import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqco.data.views import Views
from eqco.evaluation.features import Features
from eqco.runtime.ranks import gather, rank
from eqco.runtime.signals import Stop
from eqco.store.checkpoint import Checkpoints, State
from eqco.store.resume import Resumable, write_progress
from eqco.study.protocols import Linear


@torch.no_grad()
def linear(features: Features, params: Linear, seed: int) -> dict[str, float]:
    """Train a linear layer by SGD as in MoCo (arXiv 1911.05722, section 4.1), on fixed features.

    The mini-batches of each epoch are in a random order; see ``Probes``.

    Returns:
        The accuracies after the last epoch of each of ``params.probes``, as
        ``Features.accuracies``.
    """
    device = features.train.device
    generator = torch.Generator().manual_seed(seed)
    probes = Probes(params, features.train.shape[1], features.classes, generator, device)
    train = with_one(features.train)  # (M, F + 1)
    target = F.one_hot(features.train_labels, features.classes).to(train.dtype)  # (M, Y)
    for epoch in range(params.epochs):
        order = torch.randperm(len(train), generator=generator).to(device)
        for rows in order.split(params.batch):  # a batch stays in the cache, an epoch does not
            x, y = (of.index_select(0, rows) for of in (train, target))  # (B, F + 1), (B, Y)
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
        features: for the features of the rated images.
        params: the protocol.
        seed: for the layers' weights.
        checkpoints: to resume from, and to write to after each epoch and if ``stop`` is set.
        stop: read after each step.
        progress: file for the progress, written after each epoch.

    Returns:
        The accuracies after the last epoch of each of ``params.probes``, as
        ``Features.accuracies``.

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
    """Linear layers for R learning rates, trained side by side on the same mini-batches.

    Each layer is trained as it would be alone. Weights start at N(0, 0.01²). The bias is the weight
    of a feature that is always 1, and starts at 0. Momentum is 0.9; there is no weight decay. The
    learning rate is divided by ten at each of ``drops``.

    Attributes:
        weight: (R Y, F + 1).
        velocity: of the momentum (R Y, F + 1).
        steps: steps done.

    Args:
        params: the protocol.
        width: F, features of an image.
        classes: Y.
        generator: the source of randomness for the weights.
        device: of the layers.
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
        lrs = torch.tensor(list(params.probes.values()), device=device)
        self.lr = lrs.repeat_interleave(classes)[:, None]  # (R Y, 1)

    def step(self, x: Tensor, y: Tensor, epoch: int) -> None:
        """Do a step of SGD on features with their 1 (B, F + 1) and one-hot labels (B, Y)."""
        lr = self.lr
        for _ in range(sum(drop <= epoch for drop in self.params.drops)):
            lr = lr * 0.1
        sgd_step(self.weight, self.velocity, x, y, lr)
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
        """The accuracies of each of ``params.probes``, as ``Features.accuracies``."""
        rated = with_one(features.rated)
        scores = (rated @ self.weight.T).view(len(rated), -1, self.classes).transpose(0, 1)
        accuracies: dict[str, float] = {}
        for name, score in zip(self.params.probes, scores, strict=True):
            accuracies |= features.accuracies(name, score)  # (R, Y)
        return accuracies


def sgd_step(weight: Tensor, velocity: Tensor, x: Tensor, y: Tensor, lr: Tensor) -> None:
    """A step of SGD on the mean cross-entropy of R linear layers, with momentum 0.9, in place.

    Args:
        weight: (R Y, F + 1).
        velocity: of the momentum (R Y, F + 1).
        x: features with their 1 (B, F + 1).
        y: one-hot labels (B, Y).
        lr: learning rates (R Y, 1), or one, a scalar.
    """
    scores = (x @ weight.T).view(len(x), -1, y.shape[1])  # (B, R, Y)
    error = scores.softmax(dim=2).sub_(y[:, None])  # the gradient of the cross-entropy
    velocity.mul_(0.9).addmm_(error.flatten(1).T, x, alpha=1 / len(x))
    weight.addcmul_(velocity, lr, value=-1)


def with_one(x: Tensor) -> Tensor:
    """Append a feature that is 1, for the bias: (B, F) to (B, F + 1)."""
    return F.pad(x, (0, 1), value=1.0)


def with_zero(x: Tensor) -> Tensor:
    """Append a column of zeros, the initial bias: (Y, F) to (Y, F + 1)."""
    return F.pad(x, (0, 1))
