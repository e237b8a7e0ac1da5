"""What a training step needs of a device's memory, told before it starts."""

from typing import Any

import torch
from torch import Tensor

from eqco.errors import InputError
from eqco.methods import METHODS
from eqco.networks.encoder import Encoder
from eqco.study.study import Cell, Study


def gradient_passes(method: str, symmetric: bool) -> int:
    """Views of an image that go through the encoder with a gradient in each step."""
    return 2 if symmetric or not METHODS[method].momentum else 1


def estimate(study: Study, cell: Cell, ranks: int = 1) -> int:
    """Bytes that a step needs on each rank's device, at least.

    Weights, gradients, momenta, key encoder and queue; what the encoder keeps of its passes for the
    gradient, counted on a pass without memory; the views. What single operations take beside that,
    and images that lie on the device, are left out.

    Args:
        study: the recipe.
        cell: the method, its K and the batch.
        ranks: that share the batch.
    """
    channels, size = study.data.channels, study.data.size
    share = cell.batch // ranks
    with torch.device("meta"):  # sizes without memory
        encoder = Encoder(study.network, channels)
        method = METHODS[cell.method].build(encoder, cell, study.pretrain)
        views = torch.empty(share, channels, size, size)
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    state = _bytes(method.state_dict().values()) + 2 * _bytes(trained)
    precision = getattr(torch, study.pretrain.precision)
    kept: dict[int, torch.UntypedStorage] = {}  # several operations keep the same one

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    # in eval mode it keeps as much, and batch norm asks neither other ranks nor for whole groups
    encoder = encoder.to(precision).eval()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encoder.projector(encoder.backbone(views.to(precision)))
    for parameter in encoder.parameters():
        kept.pop(parameter.untyped_storage()._cdata, None)
    passes = gradient_passes(cell.method, study.pretrain.symmetric)
    return state + passes * _bytes(kept.values()) + 2 * views.nbytes


def check(study: Study, cell: Cell, device: torch.device, ranks: int) -> None:
    """Raise InputError when a step needs more memory than the device has."""
    needed = estimate(study, cell, ranks)
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
    else:
        import psutil

        there = psutil.virtual_memory().total
    if needed > there:
        raise InputError(
            f"pretrain.batch: {cell.batch}: a step needs at least {needed / 1e9:,.2f} GB of "
            f"memory, {device} has {there / 1e9:,.2f} GB: take more than {ranks} GPU, "
            "pretrain.precision: bfloat16, or a smaller batch"
        )


def _bytes(tensors: Any) -> int:
    return sum(x.nbytes() if callable(x.nbytes) else x.nbytes for x in tensors)
