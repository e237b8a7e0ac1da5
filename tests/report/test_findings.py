"""The differences that README and findings state: each from the committed tables, by paired t.

A difference is of two groups of arms, each named by a query on the accuracies: a group's value for
a seed is the mean over its arms.
"""

import re
from functools import cache

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from scipy import stats

from eqco.report import tables
from eqco.report.statistics import paired
from eqco.study.grid import Grid
from eqco.study.load import load_study

EARLIER = ROOT / "docs" / "earlier-studies.md"
PAGES = [ROOT / "README.md", ROOT / "docs" / "findings.md", EARLIER]
PAGES += sorted(ROOT.glob("docs/findings/*.md"))
NUMBER = r"[+−]\d+\.\d\d"
QUOTED = re.compile(rf"{NUMBER} \[{NUMBER}, {NUMBER}\](?:, p [=<] \.\d+)?")

INFO_NCE, EQCO = "margin == '0'", "margin == 'eqco'"
LARGEST = "(method == 'simo' and negatives == 255 or method == 'moco' and negatives == 4096)"
PLAIN = "loss == 'info-nce' and margin == '0' and lr == '0.01'"


def versus(first: str, second: str, *both: str) -> tuple[str, str]:
    """The queries of two groups, which share conditions."""
    return " and ".join([*both, first]), " and ".join([*both, second])


FASHION = {
    "InfoNCE, K = 1 less K = 255": versus("negatives == 1", "negatives == 255", INFO_NCE),
    "EqCo, K = 1 less K = 255": versus("negatives == 1", "negatives == 255", EQCO),
    **{
        f"EqCo less InfoNCE, K = {k}": versus(EQCO, INFO_NCE, f"negatives == {k}")
        for k in (1, 4, 16, 64, 255)
    },
}
NEGATIVES = {
    **{
        f"{name}, τ = {tau}, {loss}: K = 4 less the largest": versus(
            "negatives == 4", LARGEST, f"method == '{method}'", f"temperature == '{tau}'", margin
        )
        for method, name in (("simo", "SiMo"), ("moco", "MoCo"))
        for tau in ("0.1", "0.2")
        for loss, margin in (("InfoNCE", INFO_NCE), ("EqCo", EQCO))
    },
    "all four, InfoNCE: K = 4 less the largest": versus("negatives == 4", LARGEST, INFO_NCE),
    "all four, EqCo: K = 4 less the largest": versus("negatives == 4", LARGEST, EQCO),
    **{
        f"all four: EqCo less InfoNCE, K = {k}": versus(EQCO, INFO_NCE, f"negatives == {k}")
        for k in (4, 16, 64)
    },
    "SiMo, K = 255: EqCo less InfoNCE, which are one loss": versus(
        EQCO, INFO_NCE, "negatives == 255"
    ),
}
ARMS = {
    "EqCo, α = 256": "margin == 'eqco' and alpha == '256'",
    "EqCo, α = 65,536": "margin == 'eqco' and alpha == '65536'",
    "DCL": "margin == 'inf'",
    "dual temperature, τ_β = 1": "loss == 'dual-temperature'",
    "InfoNCE over the batch mean of W": "loss == 'info-nce-rescaled'",
    "DCL times the batch mean of W": "loss == 'dcl-rescaled'",
    "InfoNCE, lr × 3": "margin == '0' and lr == '0.03'",
    "InfoNCE, lr × 7": "margin == '0' and lr == '0.07'",
}
CONTROLS = {
    f"{name}, K = {k}": versus(arm, PLAIN, f"negatives == {k}")
    for k in (4, 255)
    for name, arm in ARMS.items()
} | {
    # the four arms {InfoNCE, DCL} x {W's mean as it is, 1} as a 2 x 2 factorial
    "weights of mean 1 less InfoNCE's mean, K = 4": versus(
        "(loss == 'info-nce-rescaled' or margin == 'inf')",
        f"(loss == 'dcl-rescaled' or {PLAIN})",
        "negatives == 4",
    ),
    "equal weights less InfoNCE's, K = 4": versus(
        "(loss == 'dcl-rescaled' or margin == 'inf')",
        f"(loss == 'info-nce-rescaled' or {PLAIN})",
        "negatives == 4",
    ),
}
BATCH = {
    "DCL less SimCLR, all batches": ("margin == 'inf'", "margin == '0'"),
    "SimCLR, N = 512 less 32": versus("batch == 512", "batch == 32", "margin == '0'"),
    "DCL, N = 512 less 32": versus("batch == 512", "batch == 32", "margin == 'inf'"),
}
SLOW, FAST = "lr == '0.003'", "lr == '0.009'"
REPEATS = {
    "EqCo less InfoNCE, K = 1": versus(EQCO, INFO_NCE, "negatives == 1", SLOW),
    "InfoNCE, K = 1 less K = 255": versus("negatives == 1", "negatives == 255", INFO_NCE, SLOW),
    "EqCo, K = 1 less K = 255": versus("negatives == 1", "negatives == 255", EQCO, SLOW),
    "InfoNCE at lr × 3 less InfoNCE, K = 1": versus(FAST, SLOW, "negatives == 1", INFO_NCE),
    "EqCo less InfoNCE at lr × 3, K = 1": (
        f"negatives == 1 and {EQCO} and {SLOW}",
        f"negatives == 1 and {INFO_NCE} and {FAST}",
    ),
}
MOCO = {
    "symmetric less asymmetric": (
        "study == 'moco-cifar10-demo-symmetric-cpu'",
        "study == 'moco-cifar10-demo-cpu'",
    )
}
STUDIES = {
    "moco-cifar10-demo-cpu moco-cifar10-demo-symmetric-cpu": MOCO,
    "fashion-mnist": FASHION,
    "demo-repeats": REPEATS,
    "negatives-cpu": NEGATIVES,
    "controls-cpu": CONTROLS,
    "batch-cpu": BATCH,
}


@cache
def accuracies(studies: str) -> pd.DataFrame:
    every = []
    for study in studies.split():
        folder = ROOT / "results" / study
        grid = Grid(load_study(ROOT / "params" / f"{study}.yaml"))
        rows, _ = tables.read_study(grid, folder)
        every.append(rows.assign(study=study))
    return pd.concat(every)


def by_seed(rows: pd.DataFrame) -> "pd.Series[float]":
    """A group's value for each seed, of the seeds that all its arms have."""
    arms = rows.groupby("seed")["accuracy"]
    return arms.mean()[arms.size() == arms.size().max()]


def differences(rows: pd.DataFrame, first: str, second: str) -> np.ndarray:
    return (by_seed(rows.query(first)) - by_seed(rows.query(second))).dropna().to_numpy()


def shown(d: np.ndarray) -> str:
    """The mean, its 95 % t interval and p of a paired t test, as the pages write them."""
    found = paired(d)
    p, numbers = found.p(), (found.difference, *found.interval())
    middle, low, high = (f"{x:+.2f}".replace("-", "−") for x in numbers)
    written = "p < .001" if p < 0.0005 else f"p = {p:.3f}".replace("0.", ".", 1)
    return f"{middle} [{low}, {high}], {written}"


@cache
def row(study: str, name: str) -> str:
    """A line of a table of findings: n, each protocol's difference, what n can find by L-BFGS."""
    cells, every = [], accuracies(study)
    for protocol in every["protocol"].unique():
        d = differences(every[every["protocol"] == protocol], *STUDIES[study][name])
        cells.append(shown(d))
        if protocol == "linear-lbfgs":
            n, found = len(d), paired(d).detectable()
    return f"| {name} | {n} | {' | '.join(cells)} | {found:.1f} |"


EVERY = [(study, name) for study, named in STUDIES.items() for name in named]


@pytest.mark.parametrize(("study", "name"), EVERY)
def test_the_page_has_each_difference_as_the_committed_table_gives_it(study, name):
    assert row(study, name) in EARLIER.read_text().splitlines()


def test_in_how_many_of_ten_repeats_the_demo_shows_its_difference():
    """Five seeds a repeat: how often the interval of EqCo less InfoNCE at K = 1 lies above 0."""
    every, counts = accuracies("demo-repeats"), []
    for protocol in every["protocol"].unique():
        d = differences(
            every[every["protocol"] == protocol], *REPEATS["EqCo less InfoNCE, K = 1"]
        ).reshape(10, 5)
        half = stats.t.ppf(0.975, 4) * stats.sem(d, axis=1)
        counts.append(int((d.mean(axis=1) > half).sum()))
    lbfgs, sgd, knn, knn20 = counts
    probes = f"in {lbfgs} of 10 by L-BFGS, {sgd} by SGD"
    told = f"{probes}, {knn} by kNN with k = 200 and {knn20} with k = 20"
    assert told in " ".join(EARLIER.read_text().split())


def test_how_much_is_noise():
    """Of pairs of one loss under two names, and of two arms on the same seeds."""
    text = " ".join(EARLIER.read_text().split())
    every = accuracies("negatives-cpu")
    same = every[(every["protocol"] == "linear-lbfgs") & (every["negatives"] == 255)]
    arms = same.pivot_table("accuracy", ["temperature", "seed"], "margin")
    deviation = (arms["eqco"] - arms["0"]).std()
    assert len(arms) == 8
    assert f"the eight pairs have a standard deviation of {deviation:.2f} by L-BFGS" in text
    table = pd.read_csv(ROOT / "results/controls-cpu/comparisons.csv")
    controls = table[(table["comparison"] == "controls") & (table["protocol"] == "linear-lbfgs")]
    mean = controls["correlation"].mean()
    assert f"The correlation of an arm with InfoNCE over seeds is {mean:.2f} in the mean" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_difference_that_a_sentence_quotes_is_one_of_these(page):
    known = [
        *(row(study, name) for study, name in EVERY),
        *(file.read_text() for file in ROOT.glob("results/*/comparisons.md")),
    ]
    known = "\n".join(known)
    quotes = QUOTED.findall(" ".join(page.read_text().split()))
    assert quotes or page.parent.name == "findings"
    for quote in quotes:
        assert quote in known, quote


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_difference_is_said_to_be_none(page):
    """An interval that holds 0 leaves it undecided."""
    text = page.read_text().lower()
    for phrase in ("no difference", "no effect", "costs nothing", "standard errors above"):
        assert phrase not in text
