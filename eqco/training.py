"""The training step: two views of a batch, the networks, the loss, the update."""

import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from eqco.augment import Augmentation
from eqco.data import load, read_manifest
from eqco.diagnostics import measure
from eqco.errors import InputError
from eqco.malloc import keep_freed_memory
from eqco.methods import METHODS
from eqco.methods.base import Similarities
from eqco.networks import Encoder
from eqco.objectives import objective
from eqco.params import Cell, Study

STREAMS = ("weights", "order", "views", "negatives")


def draw_seed(
    seed: int, stream: Literal["weights", "order", "views", "negatives"], index: int
) -> int:
    """A seed in [0, 2⁶³) for one draw of one stream.

    Every random draw of a run is a function of the cell's seed, what it is for, and the step or
    epoch: no random state is carried from step to step.
    """
    sequence = np.random.SeedSequence([seed, STREAMS.index(stream), index])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def learning_rate(step: int, steps: int, warmup: float, peak: float) -> float:
    """Linear warm-up times half a cosine from step 0 on, as in EqCo's released code.

    Args:
        step: from 0 to steps − 1.
        steps: of the whole training.
        warmup: steps of the warm-up, may be a fraction.
        peak: the rate without both.
    """
    rise = min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0
    return peak * rise * 0.5 * (1 + math.cos(math.pi * step / steps))


class Training:
    """The training of one cell, step by step.

    Attributes:
        step: steps done.
        steps: of the whole training.
        steps_per_epoch: the last, smaller batch of an epoch is dropped.
        encoder: what is trained.
        diagnosis: the numbers of ``diagnostics.NAMES`` for the last step of an epoch.

    Args:
        study: the recipe.
        cell: the method and its K, margin, α, τ and seed.
        data: folder of the packed dataset.
        device: where to train.

    Raises:
        InputError: when the batch is larger than the data.
    """

    def __init__(self, study: Study, cell: Cell, data: Path, device: torch.device) -> None:
        self.cell, self.recipe, self.device = cell, study.pretrain, device
        if device.type == "cpu":
            keep_freed_memory()
        manifest = read_manifest(data)
        images = load(data, "train", study.data.train_size)["images"]
        if cell.batch > len(images):
            raise InputError(
                f"pretrain.batch: {cell.batch}: {data} has {len(images)} training images"
            )
        if device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
            images = images.to(device)
        self.images = images  # (M, C, H, W) uint8: on the device, or mapped from the file
        mean, std = (torch.tensor(manifest[name], device=device) for name in ("mean", "std"))
        self.augment = Augmentation(study.augment, mean, std)
        with torch.random.fork_rng():
            torch.manual_seed(draw_seed(cell.seed, "weights", 0))
            self.encoder = Encoder(study.network, channels=images.shape[1])
            self.encoder.precision = getattr(torch, self.recipe.precision)
            method = METHODS[cell.method].build(self.encoder, cell, self.recipe)
        # pixels with their channels side by side: 1.3 times as fast here
        self.method = method.to(device).to(memory_format=torch.channels_last).train()
        self.loss_of = objective(cell, study.loss)
        self.optimizer = torch.optim.SGD(
            [parameter for parameter in method.parameters() if parameter.requires_grad],
            lr=cell.lr,
            momentum=self.recipe.momentum,
            weight_decay=self.recipe.weight_decay,
        )
        self.step = 0
        self.diagnosis: Tensor  # (5,)
        self.steps_per_epoch = len(images) // cell.batch
        self.steps = self.recipe.epochs * self.steps_per_epoch
        self._order: tuple[int, Tensor] | None = None  # an epoch and its (M,) permutation

    def advance(self) -> Tensor:
        """Do one step; returns its mean loss in nats, a scalar on the device."""
        self.optimizer.param_groups[0]["lr"] = self.lr(self.step)
        seed = draw_seed(self.cell.seed, "negatives", self.step)
        draw = torch.Generator(self.device).manual_seed(seed)
        similarities = self.method(*self.views(self.step), draw)  # (A,), (A, K)
        loss = self.loss_of(*similarities).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.step += 1
        if self.step % self.steps_per_epoch == 0:
            self.diagnosis = self._diagnose(similarities)
        self.optimizer.step()
        self.method.after_step()
        return loss.detach()

    def lr(self, step: int) -> float:
        """The learning rate of a step."""
        warmup = self.recipe.warmup_epochs * self.steps_per_epoch
        return learning_rate(step, self.steps, warmup, self.cell.lr)

    def views(self, step: int) -> tuple[Tensor, Tensor]:
        """The two views of a step's batch, (N, C, H, W) each."""
        epoch, i = divmod(step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(draw_seed(self.cell.seed, "order", epoch))
            order = torch.randperm(len(self.images), generator=generator)
            self._order = epoch, order.to(self.images.device)
        visit = self._order[1][i * self.cell.batch : (i + 1) * self.cell.batch]  # (N,)
        batch = self.images[visit].to(self.device, non_blocking=True)  # (N, C, H, W) uint8
        views = self.augment(batch.repeat(2, 1, 1, 1), draw_seed(self.cell.seed, "views", step))
        view1, view2 = views.contiguous(memory_format=torch.channels_last).chunk(2)
        return view1, view2

    def _diagnose(self, similarities: Similarities) -> Tensor:
        gradients = torch.cat([q.grad for q in self.method.latest_queries if q.grad is not None])
        return measure(*similarities, gradients, self.cell)

    def tensors(self) -> dict[str, Tensor]:
        """Everything but ``step`` that the next step depends on, by name."""
        named = {f"model.{name}": tensor for name, tensor in self.method.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            for slot, value in slots.items():
                if value is not None:
                    named[f"optimizer.{index}.{slot}"] = value
        return named

    def restore(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Go on after ``step`` steps from what ``tensors`` gave then."""
        states: dict[int, dict[str, Tensor]] = {}
        weights = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "model":
                weights[rest] = tensor
            elif kind == "optimizer":
                index, _, slot = rest.partition(".")
                states.setdefault(int(index), {})[slot] = tensor
        self.method.load_state_dict(weights)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": states})
        self.step = step
