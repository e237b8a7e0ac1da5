"""Radians by which a step turns the weights, with a loss and with 0.3 times it.

In equilibrium the weights before a batch norm turn by √(2 lr wd / (1 + μ)) per step, whatever the
size of the loss (arXiv 2006.08419). SGD with weight decay reaches it in (1 − μ) / (4 lr wd) steps.
DCL is trained on digits for 200 steps, with a rate and decay that need 10, and with some that need
25,000. Prints one JSON line per setting, over the middle of the training: the angle, its ratio to
the prediction, and the ratio of the angles with 0.3 times the loss and with the loss.
"""

from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import torch
import yaml

from benchmarks._measure import DEMO, ROOT, arguments, packed, report
from eqco.report import figures
from eqco.study.grid import Grid
from eqco.study.load import parse_study
from eqco.training.loop import pretrain
from eqco.training.step import learning_rate

SCALE, EPOCHS = 0.3, 40
MIDDLE = slice(EPOCHS // 2, EPOCHS * 3 // 4)  # later the cosine outruns the equilibrium
SETTINGS = {"in equilibrium": (0.05, 0.05), "far from it": (0.01, 1e-4)}  # lr, weight decay
LOSSES = {"DCL": {"margins": ["inf"]}, f"DCL × {SCALE}": {"losses": ["dcl-constant"]}}
MOMENTUM = 0.9


def angles(lr: float, decay: float, loss: dict[str, Any], seeds: int, data: Path) -> np.ndarray:
    """The angular step at each epoch's end, by seed (seeds, EPOCHS); the demo at K = 4."""
    values = yaml.safe_load((ROOT / DEMO).read_text())
    values["pretrain"] |= {"lr": lr, "weight_decay": decay, "epochs": EPOCHS, "momentum": MOMENTUM}
    values["loss"] = {"constant": SCALE}
    block = {"methods": ["simo"], "negatives": [4], "margins": [0], "seeds": list(range(seeds))}
    grid = Grid(parse_study(values | {"grid": [block | loss]}, "angular_step"))
    histories = [
        pretrain(grid.study.of(one.cell), one.cell, data, device=torch.device("cpu"))[1]
        for one in grid.cells.values()
    ]
    return np.array([[entry["angular_step"] for entry in history] for history in histories])


def predicted(lr: float, decay: float) -> np.ndarray:
    """The angle in equilibrium at each epoch's end (EPOCHS,), as a cosine lowers the rate."""
    rates = [learning_rate(epoch, EPOCHS, 0, lr) for epoch in range(1, EPOCHS + 1)]
    return np.sqrt(2 * np.array(rates) * decay / (1 + MOMENTUM))


def main() -> None:
    parser = arguments(__doc__, n=3, threads=1)
    parser.add_argument("--figure", type=Path, help="path of the figure without .svg and .png")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    study = parse_study(yaml.safe_load((ROOT / DEMO).read_text()), str(DEMO))
    found: dict[str, list[np.ndarray]] = {}
    with packed(study.data) as data:
        for setting, (lr, decay) in SETTINGS.items():
            found[setting] = [angles(lr, decay, loss, options.n, data) for loss in LOSSES.values()]
            whole, part = (each[:, MIDDLE] for each in found[setting])
            of_predicted = whole / predicted(lr, decay)[MIDDLE]
            values = {"angle": whole, "of_predicted": of_predicted, "scaled": part / whole}
            medians = {name: list(np.median(each, axis=1)) for name, each in values.items()}
            where = {"setting": setting, "lr": lr, "weight_decay": decay, "epochs": EPOCHS}
            report({**where, "unit": "rad", "scale": SCALE}, medians)
    if options.figure:
        draw(found, options.figure)


def draw(found: dict[str, list[np.ndarray]], stem: Path) -> None:
    """Draw each loss's angles (seeds, EPOCHS), median and range, and what is predicted."""
    epochs = range(1, EPOCHS)  # the last ends at a rate of 0
    panels = []
    for setting, several in found.items():
        lr, decay = SETTINGS[setting]
        rows = [
            {"epoch": epoch, "line": name, "y": y, "low": low, "high": high}
            for name, each in zip(LOSSES, several, strict=True)
            for epoch, y, low, high in zip(
                epochs, np.median(each, axis=0), each.min(0), each.max(0), strict=False
            )
        ]
        law = "√(2 lr wd / (1 + μ))"
        dashed = zip(epochs, predicted(lr, decay), strict=False)
        rows += [{"epoch": epoch, "line": law, "y": y} for epoch, y in dashed]
        chart = alt.Chart(figures.values(pd.DataFrame(rows))).encode(
            x=alt.X("epoch:Q", scale=alt.Scale(nice=False)),
            color=figures.color("line", [*LOSSES, law]),
        )
        title = "turn of the weights per step [rad]"
        y, low = (
            alt.Y(f"{name}:Q", title=title, scale=alt.Scale(type="log")) for name in ("y", "low")
        )
        range_of_seeds = chart.mark_area(opacity=0.2).encode(y=low, y2="high:Q")
        dash = alt.condition(f"datum.line === '{law}'", alt.value([6, 3]), alt.value([1, 0]))
        lines = chart.mark_line().encode(y=y, strokeDash=dash)
        panel = alt.layer(range_of_seeds, lines)
        panels.append(panel.properties(title=f"lr {lr}, weight decay {decay}: {setting}"))
    title = "The size of the loss counts only before the equilibrium"
    figures.save(figures.grid(panels, title, columns=2), stem)


if __name__ == "__main__":
    main()
