"""Fine-tuning: the whole network goes on with labels, then it is rated on clean images."""

import math
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from eqco.data.packed import read_manifest
from eqco.data.views import Views
from eqco.errors import InputError
from eqco.evaluation.features import Features, dataset_of, features_of, frozen
from eqco.networks.encoder import Encoder
from eqco.runtime.seeds import draw_seed
from eqco.runtime.signals import Stop
from eqco.store.cells import SavedEncoder
from eqco.store.checkpoint import Checkpoints, State, restore, tensors_of
from eqco.store.resume import Resumable, write_progress
from eqco.study.protocols import FINETUNE, FineTune
from eqco.study.recipe import Network


def finetune(
    saved: SavedEncoder,
    data: Path,
    params: FineTune,
    *,
    device: torch.device,
    checkpoints: Checkpoints | None = None,
    stop: Stop | None = None,
    progress: Path | None = None,
    seconds_between: float = 300,
) -> tuple[dict[str, float], Features]:
    """Train a backbone and a linear layer on its features with labels, as SimCLR does.

    SGD with Nesterov's momentum 0.9 and no weight decay; half a cosine lowers the rate from step 0
    on. Batch norm is in train mode, over the whole batch. The layer starts at N(0, 0.01²), its bias
    at 0. The last, smaller mini-batch of an epoch is dropped. One process does it.

    Args:
        saved: the encoder, whose seed is that of the layer, the order and the views.
        data: folder of the packed dataset that it was trained on.
        params: the protocol.
        device: where to train.
        checkpoints: to resume from, and to write to; a resumed run on a CPU ends in the same bytes.
        stop: read after each step.
        progress: file for the progress, written after each epoch.
        seconds_between: minimum seconds between two checkpoints.

    Returns:
        The accuracies after the last epoch, as ``Features.accuracies``, and the features then.

    Raises:
        InputError: if the batch is larger than the data, or the loss stops being finite.
        Interrupted: if ``stop`` was set; the state is saved.
    """
    spec, seed = dataset_of(saved), saved.config["cell"]["seed"]
    views = Views(
        data,
        spec,
        params.augment,
        batch=params.batch,
        batch_key="evaluate.finetune.batch",
        views=1,
        epochs=params.epochs,
        seed=draw_seed(seed, "finetune", 0),
        device=device,
    )
    labels = views.labels.to(device)
    model = _model(saved, views.channels, len(read_manifest(data)["classes"]), seed).to(device)
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=params.lr, momentum=0.9, nesterov=True)
    resumable, step = Resumable(checkpoints, stop, seconds_between), 0
    if saved_state := resumable.load():
        step = saved_state.step
        restore(model, optimizer, saved_state.tensors)
    start, first_step = time.perf_counter(), step

    while step < views.steps:
        for group in optimizer.param_groups:
            group["lr"] = params.lr * 0.5 * (1 + math.cos(math.pi * step / views.steps))
        (view,) = views(step)  # (N, C, H, W)
        loss = F.cross_entropy(model(view), labels[views.visit(step).to(device)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        epoch, remaining = divmod(step, views.steps_per_epoch)
        if remaining == 0:
            if not loss.isfinite():
                raise InputError(
                    f"evaluate.finetune.lr: {params.lr}: the loss is not finite in epoch {epoch} "
                    f"of {params.epochs}; a lower rate may train"
                )
            print(f"{FINETUNE}: epoch {epoch}/{params.epochs}, loss {loss.item():.3f}", flush=True)
            if progress:
                step_seconds = (time.perf_counter() - start) / (step - first_step)
                write_progress(
                    progress,
                    epoch=epoch,
                    epochs=params.epochs,
                    images_per_s=params.batch / step_seconds,
                    seconds=step_seconds * step,
                )
        state = partial(_state, step, model, optimizer)
        resumable.after_step(step, views.steps, state)

    backbone, layer = model.requires_grad_(False)
    features = features_of(frozen(backbone), spec, data, device=device)
    accuracies = features.accuracies(FINETUNE, layer(features.rated))
    if checkpoints:
        checkpoints.remove()
    return accuracies, features


def _state(step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    return State(step, tensors_of(model, optimizer), {})


def _model(saved: SavedEncoder, channels: int, classes: int, seed: int) -> nn.Sequential:
    """The backbone with its trained weights, and a linear layer on its features (B, F)."""
    network = Network.model_validate(saved.config["network"])
    plain = network.model_copy(update={"batch_norm_groups": 1})
    encoder = Encoder(plain, channels, dataset_of(saved).size)
    encoder.load_state_dict(saved.tensors)
    layer = nn.Linear(encoder.features, classes)
    generator = torch.Generator().manual_seed(draw_seed(seed, "finetune", 1))
    nn.init.normal_(layer.weight, std=0.01, generator=generator)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(encoder.backbone, layer)
