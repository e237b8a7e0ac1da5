"""Checkpoints: the state of a training on disk, from which it resumes to the same bytes.

A checkpoint is a safetensors file whose name holds the step and the SHA-256 of its content. The
last two stay: if the newest is damaged, the one before it is used. Nothing is unpickled.
"""

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from eqco.errors import InputError
from eqco.runtime.files import canonical, write

FORMAT = 1  # of the names and the record; a change that old checkpoints do not survive raises it
KEPT = 2
RECORD = "record"


@dataclass(frozen=True)
class State:
    """The state of a training: steps done, tensors by name, and plain values."""

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]


def tensors_of(module: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The tensors of a module and its optimiser, by their names in a checkpoint."""
    tensors = {f"model.{name}": tensor for name, tensor in module.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            if value is not None:
                tensors[f"optimizer.{index}.{slot}"] = value
    return tensors


def restore(module: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give a module and its optimiser the tensors of ``tensors_of``; others are ignored."""
    states: dict[int, dict[str, Tensor]] = {}
    weights = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "model":
            weights[rest] = tensor
        elif kind == "optimizer":
            index, _, slot = rest.partition(".")
            states.setdefault(int(index), {})[slot] = tensor
    module.load_state_dict(weights)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})


class Checkpoints:
    """The checkpoints of one configuration in one folder.

    Args:
        folder: holds these checkpoints, and no others.
        made_by: everything they depend on, by name, as text; a checkpoint that differs is refused.
    """

    def __init__(self, folder: Path, made_by: dict[str, str]) -> None:
        self.folder = folder
        self.made_by = {"format": str(FORMAT), **made_by}

    def save(self, state: State) -> None:
        """Write a checkpoint, then delete all but the last two."""
        record = {"made_by": self.made_by, "step": state.step, "values": state.values}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in state.tensors.items()}
        content = save(tensors, {RECORD: canonical(record)})
        digest = hashlib.sha256(content).hexdigest()
        write(self.folder / f"step-{state.step:09d}-{digest}.safetensors", content)
        for path in self._newest_first()[KEPT:]:
            path.unlink()

    def load(self) -> State | None:
        """The newest checkpoint that is whole, or None if there is none.

        Raises:
            InputError: if it is of another configuration, dataset or format.
        """
        for path in self._newest_first():
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() not in path.name:
                print(f"{path}: is damaged, an older one is used", file=sys.stderr)
                continue
            return self._parse(path, content)
        return None

    def remove(self) -> None:
        """Delete every checkpoint."""
        for path in self._newest_first():
            path.unlink()

    def _newest_first(self) -> list[Path]:
        found = self.folder.glob("step-*.safetensors")
        return sorted(
            (path for path in found if re.fullmatch(r"step-\d{9}-[0-9a-f]{64}", path.stem)),
            reverse=True,
        )

    def _parse(self, path: Path, content: bytes) -> State:
        try:
            with safe_open(path, "pt") as file:
                record = json.loads((file.metadata() or {})[RECORD])
            made_by, step, values = record["made_by"], record["step"], record["values"]
            tensors = load(content)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: is not a checkpoint of this project: {error}") from None
        for name, value in self.made_by.items():
            if made_by.get(name) != value:
                raise InputError(
                    f"{path}: {name}: {made_by.get(name)}: this run needs {value}; delete "
                    f"{self.folder} to start it from the beginning"
                )
        return State(step, tensors, values)
