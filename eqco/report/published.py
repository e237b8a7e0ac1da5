"""What was published for a configuration, from published/accuracies.csv."""

from functools import cache
from pathlib import Path

import pandas as pd

from eqco.methods import METHODS
from eqco.study.grid import text
from eqco.study.study import Augment, Cell, Study

# our names, and those under which the numbers were published
DATASETS = {"cifar10-jpeg": "cifar-10", "cifar100": "cifar-100", "imagenet": "imagenet-1k"}
NAMES = {"moco": ("moco", "moco-v2")}
LOSSES = {"0": "info-nce", "inf": "dcl"}  # of a margin
TUNED = "tuned"  # in place of a temperature: the best of several


@cache
def _read(file: Path) -> pd.DataFrame:
    # as text, an empty cell too: what a source does not say equals nothing
    rows = pd.read_csv(file, dtype=str, keep_default_na=False)
    return rows.astype({"value": float})


def matches(study: Study, cell: Cell, protocol: str, file: Path) -> pd.DataFrame:
    """The numbers that were published for a cell's configuration, by a protocol like this one.

    A source has to say the dataset, backbone, method, whether both views are queries, loss, α, K,
    τ, batch and epochs, each as the cell's; where it says the augmentation, that too. A number of
    the best of several τ is found for each; which is the best only a whole table tells.
    No file, as where the package is used elsewhere, is no number.

    Returns:
        Rows of the file, as text but for ``value``, in percent.
    """
    if not file.is_file():
        return pd.DataFrame(columns=["paper", "temperature", "protocol", "value"])
    loss, alpha = _loss(cell)
    said = {
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
    same = rows["method"].isin(NAMES.get(cell.method, (cell.method,)))
    same &= rows["temperature"].isin([text(cell.temperature), TUNED])
    same &= rows["augmentation"].isin([_augmentation(study.augment), ""])
    for column, value in said.items():
        same &= rows[column].eq(value)
    return rows[same & _like(rows["protocol"], protocol, study)]


def _loss(cell: Cell) -> tuple[str, str]:
    """The name of a cell's loss among the published ones, and α where it is EqCo's."""
    if cell.loss != "info-nce":
        return cell.loss, ""
    if cell.margin != "eqco":
        margin = text(cell.margin)
        return LOSSES.get(margin, f"margin {margin}"), ""
    assert cell.alpha is not None
    return ("info-nce", "") if cell.alpha == cell.negatives else ("eqco", text(cell.alpha))


def _symmetric(study: Study, cell: Cell) -> str:
    """Whether both views are queries, said where the method leaves the choice."""
    return str(study.pretrain.symmetric).lower() if METHODS[cell.method].symmetric else ""


def _augmentation(augment: Augment) -> str:
    """The two strengths by which the papers' augmentations of one dataset differ most."""
    crop = augment.crop[0] if augment.crop else 1
    jitter = augment.jitter.brightness if augment.jitter else 0
    return f"crop {crop:g}, jitter {jitter:g}"


def _like(published: "pd.Series[str]", protocol: str, study: Study) -> "pd.Series[bool]":
    """Which published protocols stand beside ours: close enough to compare, named in the table."""
    if protocol == "linear":
        return published.isin(["linear", "linear-online"])
    if protocol == "knn":  # on whatever layer, of the last or the best epoch
        settings = study.evaluate.knn
        return published.str.split(", ").str[0].eq(f"knn k={settings.k} T={settings.temperature:g}")
    return published.isin([])
