"""Weights of others: the tensors of a checkpoint, and those among them that a backbone needs.

Checkpoints nest a backbone's tensors under names of their own, as MoCo's
``state_dict``/``module.encoder_q.``. A prefix is found, not known: it is the one before which every
name of the backbone stands.
"""

import pickle
import re
import struct
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from eqco.errors import InputError
from eqco.study.recipe import Network
from eqco.study.weights import find_weights

# words in a prefix of weights that only follow others: encoder_k, momentum_backbone, teacher
FOLLOWS = {"k", "key", "momentum", "ema", "teacher", "target"}
COUNTER = "num_batches_tracked"  # of batch norm, which old checkpoints lack and eval mode ignores

# errors in which a damaged archive or pickle may end
DAMAGED = (
    *(OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError),
    struct.error,
)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or a torch checkpoint, by their names.

    Names of nested dictionaries are joined by dots: ``state_dict.module.encoder_q.conv1.weight``.
    Nothing but tensors and plain values is unpickled.

    Raises:
        InputError: if the file is neither, or is damaged, or asks for code or classes of others.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        is_safetensors = file.read(9)[8:] == b"{"  # after the length of its header, JSON
    try:
        if is_safetensors:
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's protocol
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            raise InputError(
                f"{path}: holds {named[1]}, which is no tensor and could run code: it is not "
                "loaded; save the state dict alone"
            ) from None
        raise _neither(path, error) from None
    except (SafetensorError, *DAMAGED) as error:
        raise _neither(path, error) from None
    tensors = dict(_flat(content))
    if not tensors:
        raise InputError(f"{path}: holds no dictionary of tensors, a state dict")
    return tensors


def _neither(path: Path, error: Exception) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]
    return InputError(f"{path}: is neither safetensors nor a state dict of torch: {reason}")


def _flat(content: Any, prefix: str = "") -> list[tuple[str, Tensor]]:
    """The tensors in nested dictionaries, with their joined names."""
    if isinstance(content, Tensor):
        return [(prefix.removesuffix("."), content)]
    if not isinstance(content, dict):
        return []
    return [one for name, inner in content.items() for one in _flat(inner, f"{prefix}{name}.")]


def start(backbone: nn.Module, network: Network) -> None:
    """Give a backbone the weights of ``network.weights``, if the study has it.

    Raises:
        InputError: if the file is missing, or of another backbone; see ``load_backbone``.
    """
    if network.weights is None:
        return
    file = find_weights(network.weights)
    if file is None:
        raise InputError(f"network.weights: {network.weights}: is missing")
    source = f"network.weights: {file}"
    load_backbone(backbone, network.backbone, read_weights(file), source, None)


def load_backbone(
    backbone: nn.Module, name: str, tensors: dict[str, Tensor], source: str, prefix: str | None
) -> str:
    """Load a backbone's weights out of all tensors of a checkpoint.

    Tensors outside of the backbone, as a classifier's or a projector's, are ignored. A
    ``Sequential`` of a network's children names them by their number; that is known too.

    Args:
        backbone: whose state is replaced.
        name: of the backbone, for messages.
        tensors: of ``read_weights``.
        source: the file, for messages.
        prefix: of the names of its weights; None: the only one that has all of them, an encoder's
            rather than its moving average's.

    Returns:
        The prefix.

    Raises:
        InputError: if weights are missing, or have other shapes, or belong to a larger backbone,
            or are not finite, or several prefixes have all of them.
    """
    needed = {key: t for key, t in backbone.state_dict().items() if not key.endswith(COUNTER)}
    prefix, names = _place(backbone, list(needed), name, tensors, source, prefix)
    for key, tensor in needed.items():
        given = tensors[prefix + names[key]]
        if given.shape != tensor.shape:
            shapes = [" x ".join(map(str, t.shape)) or "one number" for t in (given, tensor)]
            message = f"is {shapes[0]}, {name} needs {shapes[1]}"
            raise InputError(f"{source}: {prefix}{names[key]}: {message}")
        if not given.isfinite().all():
            raise InputError(f"{source}: {prefix}{names[key]}: has values that are not finite")
    parts, known = {own.split(".")[0] for own in names.values()}, set(names.values())
    for full in tensors:
        own = full.removeprefix(prefix)
        is_inside = full.startswith(prefix) and own.split(".")[0] in parts
        if is_inside and own not in known and not own.endswith(COUNTER):
            raise InputError(
                f"{source}: {full}: {name} has no such weights: it is another backbone"
            )
    backbone.load_state_dict(
        {key: tensors[prefix + own] for key, own in names.items()}, strict=False
    )
    return prefix


def _place(
    backbone: nn.Module,
    needed: list[str],
    name: str,
    tensors: dict[str, Tensor],
    source: str,
    asked: str | None,
) -> tuple[str, dict[str, str]]:
    """The prefix of a backbone's weights, and the name of each behind it."""
    namings = [{key: key for key in needed}]
    numbers = {child: str(i) for i, (child, _) in enumerate(backbone.named_children())}
    if {key.split(".")[0] for key in needed} <= set(numbers):
        parts = {key: key.split(".", 1) for key in needed}
        namings.append({key: f"{numbers[child]}.{own}" for key, (child, own) in parts.items()})
    found: dict[str, dict[str, str]] = {}  # by prefix, the names behind it
    nearest: tuple[int, str, dict[str, str]] = (0, "", namings[0])
    for names in namings:
        for prefix, count in _prefixes(tensors, set(names.values())).items():
            if asked is not None and prefix != (f"{asked.rstrip('.')}." if asked else ""):
                continue
            if count == len(needed):
                found.setdefault(prefix, names)
            elif count > nearest[0]:
                nearest = count, prefix, names
    leading = [one for one in found if not FOLLOWS & set(re.split(r"[._]", one))]
    whole = leading or list(found)
    if len(whole) > 1:
        allowed = ", ".join(one or '""' for one in whole)
        raise InputError(f"{source}: has weights of {name} several times; --prefix: {allowed}")
    if whole:
        return whole[0], found[whole[0]]
    count, prefix, names = nearest
    if not count:
        example = next(iter(tensors))
        at = "" if asked is None else f" with the prefix {asked!r}"
        raise InputError(f"{source}: has no weights of {name}{at}; it has {example}")
    missing = [own for own in names.values() if prefix + own not in tensors]
    more = f" and {len(missing) - 1} more" * (len(missing) > 1)
    raise InputError(f"{source}: {prefix}{missing[0]}: is missing{more}; {name} needs it")


def _prefixes(tensors: dict[str, Tensor], names: set[str]) -> Counter[str]:
    """The number of these names that the tensors have behind each prefix."""
    counts = Counter[str]()
    for full in tensors:
        parts = full.split(".")
        for i in range(len(parts)):
            if ".".join(parts[i:]) in names:
                counts["".join(f"{part}." for part in parts[:i])] += 1
    return counts
