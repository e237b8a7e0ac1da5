"""What was published for a configuration, from params/published.csv."""

from functools import cache
from pathlib import Path

import pandas as pd

from eqco.grid import text
from eqco.params import Cell, Study

# our names, and those under which the numbers were published
DATASETS = {"cifar10-jpeg": "cifar-10", "cifar100": "cifar-100", "imagenet": "imagenet-1k"}
METHODS = {"moco": ("moco", "moco-v2")}
LOSSES = {"0": "info-nce", "eqco": "eqco", "inf": "dcl"}  # of a margin
PROTOCOLS = {"linear": "linear", "knn": "knn k=200 T=0.1"}  # of which ours are comparable


@cache
def _read(file: Path) -> pd.DataFrame:
    return pd.read_csv(file)


def matches(study: Study, cell: Cell, protocol: str, file: Path) -> pd.DataFrame:
    """The published numbers of a cell's dataset, method, loss, K, batch, epochs and protocol.

    A number whose source does not say K or the batch matches any; its epochs must be said and
    equal. kNN with k = 200 and T = 0.1 matches on any layer, and also the best epoch's: the
    protocol of the row says so. No file, as where the package is used elsewhere, is no match.

    Returns:
        Rows of the file, with ``value`` in percent.
    """
    if not file.is_file() or protocol not in PROTOCOLS:
        return pd.DataFrame(columns=["paper", "protocol", "value"])
    rows = _read(file)
    loss = LOSSES.get(text(cell.margin), "") if cell.loss == "info-nce" else cell.loss
    named = rows["protocol"].str
    same = named.fullmatch("linear") if protocol == "linear" else named.startswith(PROTOCOLS["knn"])
    same &= rows["dataset"].eq(DATASETS.get(study.data.name, study.data.name))
    same &= rows["method"].isin(METHODS.get(cell.method, (cell.method,)))
    same &= rows["loss"].eq(loss)
    same &= rows["epochs"].eq(study.pretrain.epochs)
    for column, value in (("negatives", cell.negatives), ("batch", cell.batch)):
        same &= rows[column].isna() | rows[column].eq(value)
    return rows[same]
