"""The cost of a training before it starts: forward passes, memory of a step, size of its files."""

from typing import Any

import torch
from torch import Tensor

from eqco.errors import InputError
from eqco.methods import build
from eqco.methods.base import Contrastive
from eqco.networks.encoder import Encoder
from eqco.networks.weights import start
from eqco.runtime.files import canonical
from eqco.study.cell import Cell
from eqco.study.methods import METHODS
from eqco.study.study import Study
from eqco.training.optimizers import SLOTS


def gradient_passes(method: str, symmetric: bool) -> int:
    """The number of an image's views that go through the encoder with a gradient in each step."""
    return 2 if symmetric or not METHODS[method].momentum else 1


def forward_units(method: str, symmetric: bool) -> int:
    """The cost of a pair of views in forward passes; a backward pass counts as two.

    With a momentum encoder 3 (query) + 1 (key) = 4, symmetric 8. Without one both views cost 3: 6.
    """
    keys = 1 + symmetric if METHODS[method].momentum else 0
    return 3 * gradient_passes(method, symmetric) + keys


def saved_bytes(study: Study, cell: Cell) -> tuple[int, int]:
    """The size of a cell's encoder file and of one of its checkpoints, without their headers."""
    encoder, method = _build(study, cell)
    encoders = 1 + METHODS[cell.method].momentum  # the file holds the key encoder too
    return (
        encoders * _bytes(encoder.state_dict().values()),
        _bytes(method.state_dict().values()) + _slots(study, cell) * _bytes(_trained(method)),
    )


def estimate(study: Study, cell: Cell, ranks: int = 1) -> int:
    """Minimum bytes that a step needs on each rank's device.

    Counted are weights, gradients, the optimiser's state, key encoder and queue; the activations
    that the encoder saves for the gradient; and the views. The temporary memory of single
    operations and images on the device are left out.

    Args:
        study: the recipe.
        cell: the method, its K and the batch.
        ranks: the number of ranks that share the batch.
    """
    study = study.of(cell)
    channels, size = study.data.channels, study.data.size
    encoder, method = _build(study, cell)
    views = torch.empty(cell.batch // ranks, channels, size, size, device="meta")
    gradients = _bytes(_trained(method))
    state = _bytes(method.state_dict().values()) + (1 + _slots(study, cell)) * gradients
    precision = getattr(torch, study.pretrain.precision)
    # by identity (_cdata: torch has no public one), as several operations save the same storage
    activations: dict[int, torch.UntypedStorage] = {}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        activations[storage._cdata] = storage
        return tensor

    # eval mode saves as much, and its batch norm needs neither other ranks nor whole groups
    encoder = encoder.to(precision).eval()
    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        encoder.projector(encoder.backbone(views.to(precision)))
    for parameter in encoder.parameters():
        activations.pop(parameter.untyped_storage()._cdata, None)
    passes = gradient_passes(cell.method, study.pretrain.symmetric)
    return state + passes * _bytes(activations.values()) + 2 * views.nbytes


def check_networks(study: Study) -> None:
    """Make every network of the grid on the meta device, before anything is computed.

    Raises:
        InputError: if one cannot be made for the study's images, or has other weights than
            ``network.weights`` gives it.
    """
    networks = {canonical(v.study.network.model_dump()): v.study.network for v in study.variants}
    for network in networks.values():
        with torch.device("cpu" if network.weights else "meta"):  # without memory where it can be
            encoder = Encoder(network, study.data.channels, study.data.size)
            start(encoder.backbone, network)


def check(study: Study, cell: Cell, device: torch.device, ranks: int) -> None:
    """Raise InputError if a step needs more memory than the device has."""
    needed = estimate(study, cell, ranks)
    if device.type == "cuda":
        available = torch.cuda.get_device_properties(device).total_memory
    else:
        import psutil

        available = psutil.virtual_memory().total
    if needed > available:
        raise InputError(
            f"pretrain.batch: {cell.batch}: a step needs at least {needed / 1e9:,.2f} GB of "
            f"memory, {device} has {available / 1e9:,.2f} GB: take more than {ranks} GPU, "
            "pretrain.precision: bfloat16, or a smaller batch"
        )


def _build(study: Study, cell: Cell) -> tuple[Encoder, Contrastive]:
    """The networks of a cell on the meta device, whose tensors have a size but no memory."""
    study = study.of(cell)
    with torch.device("meta"):
        encoder = Encoder(study.network, study.data.channels, study.data.size)
        return encoder, build(cell, encoder, study.pretrain)


def _trained(method: Contrastive) -> list[Tensor]:
    return [parameter for parameter in method.parameters() if parameter.requires_grad]


def _slots(study: Study, cell: Cell) -> int:
    return SLOTS[study.of(cell).pretrain.optimizer]


def _bytes(tensors: Any) -> int:
    return sum(x.nbytes() if callable(x.nbytes) else x.nbytes for x in tensors)
