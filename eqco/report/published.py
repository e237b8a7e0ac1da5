"""The published accuracies of a configuration, from published/accuracies.csv."""

from functools import cache
from pathlib import Path

import pandas as pd

from eqco.study.axes import text
from eqco.study.cell import Cell
from eqco.study.methods import METHODS
from eqco.study.protocols import ONLINE
from eqco.study.recipe import Augment
from eqco.study.study import Study

# our names, and the names in the papers
DATASETS = {
    "cifar10": "cifar-10",
    "cifar10-jpeg": "cifar-10",
    "cifar100": "cifar-100",
    "imagenet": "imagenet-1k",
}
NAMES = {"moco": ("moco", "moco-v2")}
LOSSES = {"0": "info-nce", "inf": "dcl"}  # of a margin
TUNED = "tuned"  # in place of a temperature: the accuracy at the best of several


@cache
def _read(file: Path) -> pd.DataFrame:
    # as text, an empty cell too: a setting that a source does not give matches nothing
    rows = pd.read_csv(file, dtype=str, keep_default_na=False)
    return rows.astype({"value": float})


def matches(study: Study, cell: Cell, protocol: str, file: Path) -> pd.DataFrame:
    """The published accuracies of a cell's configuration, by a protocol like this one.

    A source must give the cell's dataset, backbone, method, whether both views are queries, loss,
    α, K, τ, batch and epochs. If it gives the augmentation, that must match too. A number for the
    best of several τ matches each τ, since only a whole table shows which is the best. Without the
    file, as in a project that only uses the package, there are no numbers.

    Returns:
        Rows of the file, as text but for ``value``, in percent.
    """
    if not file.is_file():
        return pd.DataFrame(columns=["paper", "temperature", "protocol", "value"])
    study = study.of(cell)
    loss, alpha = _loss(cell)
    settings = {
        "dataset": DATASETS.get(study.data.name, study.data.name),
        "backbone": study.network.backbone,
        "symmetric": _symmetric(study, cell),
        "loss": loss,
        "alpha": alpha,
        "negatives": text(cell.negatives),
        "batch": text(cell.batch),
        "epochs": text(study.pretrain.epochs),
    }
    rows = _read(file)
    rows = rows[rows["dataset"].eq(settings["dataset"])]
    if rows.empty:  # as for most studies, which may have thousands of cells
        return rows
    same = rows["method"].isin(NAMES.get(cell.method, (cell.method,)))
    same &= rows["temperature"].isin([text(cell.temperature), TUNED])
    same &= rows["augmentation"].isin([_augmentation(study.augment), ""])
    for column, value in settings.items():
        same &= rows[column].eq(value)
    return rows[same & _like(rows["protocol"], protocol, study)]


def _loss(cell: Cell) -> tuple[str, str]:
    """The published name of a cell's loss, and α if it is EqCo's."""
    if cell.loss != "info-nce":
        return cell.loss, ""
    if cell.margin != "eqco":
        margin = text(cell.margin)
        return LOSSES.get(margin, f"margin {margin}"), ""
    assert cell.alpha is not None
    return ("info-nce", "") if cell.alpha == cell.negatives else ("eqco", text(cell.alpha))


def _symmetric(study: Study, cell: Cell) -> str:
    """Whether both views are queries; empty if the method leaves no choice."""
    return str(study.pretrain.symmetric).lower() if METHODS[cell.method].symmetric else ""


def _augmentation(augment: Augment) -> str:
    """The two strengths in which the papers' augmentations of one dataset differ most."""
    crop = augment.crop[0] if augment.crop else 1
    jitter = augment.jitter.brightness if augment.jitter else 0
    return f"crop {crop:g}, jitter {jitter:g}"


def _like(published: "pd.Series[str]", protocol: str, study: Study) -> "pd.Series[bool]":
    """Whether each published protocol is close enough to ours to compare; the table names it."""
    if protocol == "linear":
        beside = [] if study.pretrain.online else [ONLINE]  # which then has a row of its own
        return published.isin(["linear", *beside])
    if protocol == ONLINE:
        return published.eq(ONLINE)
    if protocol == "knn":  # on any layer, at the last or the best epoch
        settings = study.evaluate.knn
        return published.str.split(", ").str[0].eq(f"knn k={settings.k} T={settings.temperature:g}")
    return published.isin([])
