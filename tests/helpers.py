"""What tests share that is no fixture."""

import copy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "data" / "tiny.yaml"


def with_values(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of a study's values with ``{"pretrain.batch": 3}`` set; ``...`` removes a key."""
    changed = copy.deepcopy(values)
    for dotted, value in changes.items():
        *path, last = [int(part) if part.isdigit() else part for part in dotted.split(".")]
        target = changed
        for part in path:
            target = target[part]
        if value is ...:
            del target[last]
        else:
            target[last] = value
    return changed
