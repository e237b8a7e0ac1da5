"""The training step: two views of a batch, the networks, the loss, the update."""

import math
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eqco.data.packed import read_manifest
from eqco.data.views import Views
from eqco.errors import InputError
from eqco.losses import Negatives, SogCLR
from eqco.methods import build
from eqco.networks.encoder import Encoder
from eqco.networks.weights import start
from eqco.runtime.malloc import keep_freed_memory
from eqco.runtime.ranks import ranks
from eqco.runtime.seeds import draw_seed
from eqco.store.checkpoint import restore, tensors_of
from eqco.study.cell import Cell
from eqco.study.study import Study
from eqco.training import optimizers
from eqco.training.diagnostics import Step, measure
from eqco.training.objective import draws, objective
from eqco.training.online import OnlineClassifier


def learning_rate(step: int, steps: int, warmup: float, peak: float) -> float:
    """Linear warm-up times half a cosine from step 0 on, as in EqCo's released code.

    Args:
        step: in 0 … steps − 1.
        steps: steps of the whole training.
        warmup: steps of the warm-up; may be a fraction.
        peak: the learning rate without warm-up and cosine.
    """
    rise = min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0
    return peak * rise * 0.5 * (1 + math.cos(math.pi * step / steps))


def with_mean_gradients(method: nn.Module) -> DistributedDataParallel:
    """Wrap the method in DDP: gradients are averaged over ranks, batch-norm statistics are not."""
    with warnings.catch_warnings():
        # torch 2.15 renames the option
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(method, broadcast_buffers=False)


class Training:
    """The training of one cell, step by step.

    Attributes:
        step: steps done.
        steps: steps of the whole training.
        steps_per_epoch: without the last, smaller batch of an epoch, which is dropped.
        encoder: the encoder that is trained.
        method: the encoder and what the method adds to it.
        model: the method; with several ranks, wrapped so that their gradients are averaged.
        diagnosis: the numbers of ``diagnostics.NAMES`` and ``STEP_NAMES`` for the last step of an
            epoch, (7,).

    Args:
        study: the recipe.
        cell: the method and its K, margin, α, τ and seed, and its own values of the recipe.
        data: folder of the packed dataset.
        device: where to train.

    Raises:
        InputError: if the batch is larger than the data, or is not a multiple of the ranks; if the
            network cannot be made, or not with its weights.
    """

    def __init__(self, study: Study, cell: Cell, data: Path, device: torch.device) -> None:
        study = study.of(cell)
        self.cell, self.recipe, self.device = cell, study.pretrain, device
        self.settings = study.loss
        if device.type == "cpu":
            keep_freed_memory()
        self.views = Views(
            data,
            study.data,
            study.augment,
            batch=cell.batch,
            views=2,
            epochs=self.recipe.epochs,
            seed=cell.seed,
            device=device,
            split=study.data.pretrained_on,
        )
        if cell.batch % ranks():
            raise InputError(f"pretrain.batch: {cell.batch}: must be a multiple of {ranks()} ranks")
        with torch.random.fork_rng():
            torch.manual_seed(draw_seed(cell.seed, "weights", 0))
            self.encoder = Encoder(study.network, self.views.channels, study.data.size)
            start(self.encoder.backbone, study.network)
            self.encoder.precision = getattr(torch, self.recipe.precision)
            drawing = cell.model_copy(update={"negatives": draws(cell, study.loss)})
            method = build(drawing, self.encoder, self.recipe)
        self.loss_of = objective(cell, study.loss, images=len(self.views.labels))
        if isinstance(self.loss_of, SogCLR):
            method.memory = self.loss_of  # is moved, saved and restored with the method
        self.online = None
        if self.recipe.online:
            classes = len(read_manifest(data)["classes"])
            method.online = self.online = OnlineClassifier(self.encoder, classes)  # likewise
            self.labels = self.views.labels.to(device)  # (M,)
        # channels last: 1.3 times as fast on a CPU
        self.method = method.to(device).to(memory_format=torch.channels_last).train()
        self.model = with_mean_gradients(method) if ranks() > 1 else method
        self.optimizer = optimizers.build(self.recipe, method, lr=cell.lr)
        self.step = 0
        self.diagnosis: Tensor  # (7,)
        self.steps_per_epoch, self.steps = self.views.steps_per_epoch, self.views.steps

    def advance(self) -> Tensor:
        """Do one step.

        Returns:
            The mean loss in nats, a scalar on the device.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(self.step)
        seed = draw_seed(self.cell.seed, "negatives", self.step)
        draw = torch.Generator(self.device).manual_seed(seed)
        view1, view2 = self.views(self.step)  # (n, C, H, W) each, of this rank's n images
        self.optimizer.zero_grad()
        if self.online:
            self.online.features.clear()  # of the last step, and of passes outside of a step
        positive, negatives = self.model(view1, view2, draw)  # (A,), (A, K)
        loss = self._losses(positive, negatives).mean()
        loss.backward()
        if self.online:
            images = self.views.visit(self.step).to(device=self.device, non_blocking=True)  # (N,)
            self.online.step(self.labels[images], self.lr(self.step, self.recipe.online))
        self.step += 1
        if self.step % self.steps_per_epoch == 0:
            of_loss, step = self._diagnose(positive, negatives), Step(self.method)
            self.optimizer.step()
            self.diagnosis = torch.cat([of_loss, step.measure()])
        else:
            self.optimizer.step()
        self.method.after_step()
        return loss.detach()

    def _losses(self, positive: Tensor, negatives: Negatives) -> Tensor:
        """The loss of each anchor (A,)."""
        if isinstance(self.loss_of, SogCLR):
            return self.loss_of(positive, negatives, self.views.visit(self.step))
        return self.loss_of(positive, negatives)

    def lr(self, step: int, peak: float | None = None) -> float:
        """The learning rate of a step, of the cell's peak or another."""
        warmup = self.recipe.warmup_epochs * self.steps_per_epoch
        return learning_rate(step, self.steps, warmup, peak or self.cell.lr)

    def _diagnose(self, positive: Tensor, negatives: Negatives) -> Tensor:
        gradients = torch.cat([q.grad for q in self.method.latest_queries if q.grad is not None])
        return measure(positive, negatives, gradients, self.cell, self.settings)

    def tensors(self) -> dict[str, Tensor]:
        """Everything but ``step`` that the next step depends on, by its name in a checkpoint."""
        return tensors_of(self.method, self.optimizer)

    def restore(self, step: int, tensors: dict[str, Tensor]) -> None:
        """Continue after ``step`` steps from the result of ``tensors`` at that step."""
        restore(self.method, self.optimizer, tensors)
        self.step = step
