"""What the programs here share: how a measurement is written down."""

import json
import statistics


def report(settings: dict, values: dict[str, list[float]], **derived: float) -> None:
    """Print one JSON line: the settings, each figure's median and range over its runs, and n."""
    medians = {name: _short(statistics.median(runs)) for name, runs in values.items()}
    ranges = {name: [_short(min(runs)), _short(max(runs))] for name, runs in values.items()}
    n = min(len(runs) for runs in values.values())
    print(json.dumps({**settings, **medians, **derived, "n": n, "ranges": ranges}), flush=True)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
