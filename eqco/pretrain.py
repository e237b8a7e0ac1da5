"""Pretraining: one readable loop from a packed dataset to an encoder."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from eqco.augment import Augmentation
from eqco.data import load, read_manifest
from eqco.diagnostics import NAMES, bound, measure
from eqco.errors import InputError
from eqco.methods import METHODS
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


def pretrain(
    study: Study,
    cell: Cell,
    data: Path,
    *,
    device: torch.device,
    report: Callable[[dict[str, Any]], None] = lambda epoch: None,
) -> tuple[Encoder, list[dict[str, Any]]]:
    """Train one cell.

    Args:
        study: the recipe.
        cell: the method and its K, margin, α, τ and seed.
        data: folder of the packed dataset.
        device: where to train.
        report: called after each epoch with its entry of the history.

    Returns:
        The encoder, and for each epoch ``epoch``, ``loss`` (mean over its steps, nats), what
        ``diagnostics.measure`` gives of its last step, ``bound`` (``diagnostics.bound``), ``lr``
        at its end, ``images`` and ``images_per_s``.

    Raises:
        InputError: when the batch is larger than the data, or the loss stops being finite.
    """
    recipe = study.pretrain
    manifest = read_manifest(data)
    images = load(data, "train", study.data.train_size)["images"].to(device)  # (M, C, H, W) uint8
    if cell.batch > len(images):
        raise InputError(f"pretrain.batch: {cell.batch}: {data} has {len(images)} training images")
    mean, std = (torch.tensor(manifest[name], device=device) for name in ("mean", "std"))
    augment = Augmentation(study.augment, mean, std)
    with torch.random.fork_rng():
        torch.manual_seed(draw_seed(cell.seed, "weights", 0))
        encoder = Encoder(study.network, channels=images.shape[1])
        model = METHODS[cell.method].build(encoder, cell, recipe).to(device).train()
    loss_of = objective(cell, study.loss)
    optimizer = torch.optim.SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=cell.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    steps_per_epoch = len(images) // cell.batch  # the last, smaller batch is dropped
    steps = recipe.epochs * steps_per_epoch
    history: list[dict[str, Any]] = []
    for epoch in range(recipe.epochs):
        start = time.perf_counter()
        total = torch.zeros((), device=device)
        generator = torch.Generator().manual_seed(draw_seed(cell.seed, "order", epoch))
        visit = torch.randperm(len(images), generator=generator).to(device)  # (M,)
        for i in range(steps_per_epoch):
            step = epoch * steps_per_epoch + i
            lr = learning_rate(step, steps, recipe.warmup_epochs * steps_per_epoch, cell.lr)
            optimizer.param_groups[0]["lr"] = lr
            batch = images[visit[i * cell.batch : (i + 1) * cell.batch]]  # (N, C, H, W) uint8
            views = augment(batch.repeat(2, 1, 1, 1), draw_seed(cell.seed, "views", step))
            draw = torch.Generator(device).manual_seed(draw_seed(cell.seed, "negatives", step))
            positive, negatives = model(*views.chunk(2), draw)  # (A,), (A, K)
            loss = loss_of(positive, negatives).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            model.after_step()
            total += loss.detach()
        mean_loss = float(total) / steps_per_epoch
        gradients = torch.cat([q.grad for q in model.latest_queries if q.grad is not None])
        measured = measure(positive, negatives, gradients, cell).tolist()
        seconds = time.perf_counter() - start
        history.append(
            {
                "epoch": epoch + 1,
                "loss": mean_loss,
                **dict(zip(NAMES, measured, strict=True)),
                "bound": bound(cell, mean_loss),
                "lr": lr,
                "images": steps_per_epoch * cell.batch,
                "images_per_s": steps_per_epoch * cell.batch / seconds,
            }
        )
        report(history[-1])
        if not math.isfinite(mean_loss):
            raise InputError(
                f"the loss is {mean_loss} after epoch {epoch + 1} of {recipe.epochs}: "
                f"pretrain.lr: {cell.lr}: a lower rate may train"
            )
    return encoder, history
