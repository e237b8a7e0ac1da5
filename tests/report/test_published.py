"""The published numbers: complete, plausible, in the words of studies, beside the right rows."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers import ROOT, cells, with_values

from eqco.report import tables
from eqco.report.published import matches
from eqco.study.axes import text
from eqco.study.cell import Cell
from eqco.study.grid import Grid
from eqco.study.load import load_study, parse_study
from eqco.study.methods import METHODS
from eqco.study.study import Study

FILE = ROOT / "published" / "accuracies.csv"
STUDIES = sorted((ROOT / "params").glob("*.yaml"))


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return pd.read_csv(FILE, dtype=str, keep_default_na=False).astype({"value": float})


def test_the_columns(published):
    expected = (
        "paper dataset backbone augmentation method symmetric loss negatives alpha temperature "
        "batch epochs protocol value source"
    )
    assert " ".join(published.columns) == expected
    for column in ("paper", "dataset", "protocol", "source"):
        assert published[column].ne("").all(), column
    for column in ("negatives", "alpha", "temperature", "batch", "epochs"):
        said = set(published[column]) - {"", "tuned"}
        assert said == {text(float(value)) for value in said}, column  # as cells have them


def test_values_are_percent_and_names_are_ours(published):
    assert published["value"].between(30, 100).all()
    assert set(published["method"]) <= {"", *METHODS, "moco-v2"}
    losses = {"info-nce", "eqco", "dcl", "dclw", "dual-temperature"}
    assert set(published["loss"]) <= {"", *losses}
    assert set(published["backbone"]) <= {"", "resnet18", "resnet50", "alexnet"}
    assert set(published["symmetric"]) <= {"", "true", "false"}


def test_what_a_method_or_a_loss_leaves_no_choice_of_is_not_said(published):
    choice = published["method"].isin(["moco", "moco-v2", "simmoco"])
    assert published[~choice]["symmetric"].eq("").all()
    assert published[published["loss"] != "eqco"]["alpha"].eq("").all()


def test_simclrs_negatives_are_both_views_of_the_other_images(published):
    rows = published[(published["method"] == "simclr") & (published["batch"] != "")]
    assert rows["negatives"].astype(int).eq(2 * (rows["batch"].astype(int) - 1)).all()


def test_the_rows_are_sorted_by_dataset_and_paper(published):
    names = list(zip(published["dataset"], published["paper"], strict=True))
    assert names == sorted(names)


def test_no_number_stands_twice(published):
    assert not published.drop(columns="source").duplicated().any()


@pytest.mark.parametrize(
    ("paper", "batch", "value"),
    [("MoCo v2 repository", 256, 67.5), ("google-research/simclr", 512, 91.0)],
)
def test_numbers_that_everybody_knows(published, paper, batch, value):
    rows = published[(published["paper"] == paper) & (published["batch"] == str(batch))]
    assert value in set(rows["value"])


def table_of(study: Study, accuracy: Callable[[Cell], float]) -> pd.DataFrame:
    """A table of the study, every cell with the accuracy given for it."""
    rows = [
        {
            **tables._configuration(cell, Grid(study)),
            "protocol": protocol,
            "seed": cell.seed,
            "accuracy": accuracy(cell),
            "hole": "",
        }
        for cell in cells(study).values()
        for protocol in study.protocols
    ]
    return tables.aggregate(pd.DataFrame(rows))


def beside(study: Study, file: Path = FILE, accuracy: Callable = lambda cell: 80.0) -> list[str]:
    """A line for each row beside which numbers stand: configuration, values with protocols."""
    table = tables.beside_published(table_of(study, accuracy), Grid(study), file)
    if "published" not in table:
        return []
    lines = []
    for row in table[table["published"] != ""].to_dict("records"):
        loss = row["loss"] if row.get("loss", "info-nce") != "info-nce" else f"m={row['margin']}"
        batch = row.get("batch", study.pretrain.batch)
        names = f"{row['method']} {loss} K={row['negatives']} τ={row['temperature']} N={batch}"
        numbers = row["published"].split("; ")
        values = "; ".join(f"{one.split()[0]} {one[one.rindex(' (') + 2 : -1]}" for one in numbers)
        lines.append(f"{names}: {values}")
    return lines


def recipe(name: str, changes: dict | None = None) -> Study:
    """A study of params/, with some of its values changed."""
    values = yaml.safe_load((ROOT / "params" / f"{name}.yaml").read_text())
    return parse_study(with_values(values, changes or {}), name)


def best_at_half(cell: Cell) -> float:
    """An accuracy that is best at τ = 0.5, DCL's at 0.2."""
    return 80 - abs(cell.temperature - (0.5 if cell.margin == 0 else 0.2))


# Every recipe and every configuration that is not here has nothing beside it.
BESIDE = {
    "dcl-imagenet": ["simclr m=inf K=510 τ=0.2 N=256: 67.8 linear"],
    "moco-cifar10-demo": [
        "moco m=0 K=4096 τ=0.1 N=512: 82.6 knn k=200 T=0.1, 128-d output",
    ],
    "moco-cifar10-demo-symmetric": [
        "moco m=0 K=4096 τ=0.1 N=512: 85.3 knn k=200 T=0.1, 128-d output",
    ],
    "moco-v2-imagenet": ["moco m=0 K=65536 τ=0.2 N=256: 67.5 linear; 67.6 linear"],
    "simclr-dcl-cifar10": [
        "simclr m=0 K=62 τ=0.5 N=32: 86.4 linear, best τ",
        "simclr m=inf K=62 τ=0.2 N=32: 87 linear, best τ",
        "simclr m=0 K=126 τ=0.5 N=64: 87.7 linear, best τ",
        "simclr m=inf K=126 τ=0.2 N=64: 87.9 linear, best τ",
        "simclr m=0 K=254 τ=0.5 N=128: 88 linear, best τ",
        "simclr m=0 K=254 τ=0.5 N=128: 84.7 knn k=200 T=0.1, max over epochs; "
        "82.2 knn k=200 T=0.1, max over epochs",
        "simclr m=inf K=254 τ=0.2 N=128: 88.4 linear, best τ",
        "simclr m=0 K=510 τ=0.5 N=256: 88.2 linear, best τ",
        "simclr m=inf K=510 τ=0.2 N=256: 88.7 linear, best τ",
        "simclr m=0 K=1022 τ=0.5 N=512: 88.5 linear, best τ",
        "simclr m=0 K=1022 τ=0.5 N=512: 84.8 knn k=200 T=0.1, max over epochs; "
        "82.8 knn k=200 T=0.1, max over epochs",
        "simclr m=inf K=1022 τ=0.2 N=512: 88.6 linear, best τ",
    ],
    "simclr-imagenet": ["simclr m=0 K=510 τ=0.2 N=256: 67.286 linear"],
    "simco-cifar100": [
        "simco dual-temperature K=63 τ=0.1 N=64: 58.04 linear-online",
        "simmoco dual-temperature K=63 τ=0.1 N=64: 54.02 linear-online",
        "simco dual-temperature K=127 τ=0.1 N=128: 58.29 linear-online",
        "simmoco dual-temperature K=127 τ=0.1 N=128: 54.93 linear-online",
        "simco dual-temperature K=255 τ=0.1 N=256: 58.35 linear-online",
        "simmoco dual-temperature K=255 τ=0.1 N=256: 54.11 linear-online",
        "simco dual-temperature K=511 τ=0.1 N=512: 57.08 linear-online",
        "simmoco dual-temperature K=511 τ=0.1 N=512: 52.45 linear-online",
        "simco dual-temperature K=1023 τ=0.1 N=1024: 55.34 linear-online",
        "simmoco dual-temperature K=1023 τ=0.1 N=1024: 49.7 linear-online",
        "moco m=0 K=65536 τ=0.1 N=64: 52.58 linear-online",
        "moco m=0 K=65536 τ=0.1 N=128: 54.4 linear-online",
        "moco m=0 K=65536 τ=0.1 N=256: 53.28 linear-online",
        "moco m=0 K=65536 τ=0.1 N=512: 51.47 linear-online",
        "moco m=0 K=65536 τ=0.1 N=1024: 48.9 linear-online",
    ],
    "simo-imagenet": ["simo m=0 K=255 τ=0.2 N=256: 68.036 linear; 68.1 linear"],
}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_what_stands_beside_each_recipe(path):
    assert beside(load_study(path), accuracy=best_at_half) == BESIDE.get(path.stem, [])


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_paper_has_one_number_for_a_row(path):
    """But for SiMo's, of which the README and the log table have one each."""
    study = load_study(path)
    for cell in {cell.model_copy(update={"seed": 0}) for cell in cells(study).values()}:
        for protocol in study.evaluate.protocols:
            rows = matches(study, cell, protocol, FILE)
            twice = set(rows[rows.duplicated(["paper", "protocol"], keep=False)]["value"])
            assert twice <= ({68.036, 68.1} if cell.method == "simo" else set())


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("moco-cifar10-demo", {"data.name": "svhn"}),
        ("moco-cifar10-demo", {"data.images_per_class": 500}),
        ("moco-cifar10-demo", {"network.backbone": "resnet50"}),
        ("moco-cifar10-demo", {"augment.crop": [0.2, 1.0]}),
        ("moco-cifar10-demo", {"augment.jitter": ...}),
        ("moco-cifar10-demo", {"grid.0.negatives": [1024]}),
        ("moco-cifar10-demo", {"grid.0.margins": [0.1]}),
        ("moco-cifar10-demo", {"grid.0.losses": ["info-nce-rescaled"]}),
        ("moco-cifar10-demo", {"temperature": 0.2}),
        ("moco-cifar10-demo", {"pretrain.batch": 256}),
        ("moco-cifar10-demo", {"pretrain.epochs": 100}),
        ("moco-cifar10-demo", {"evaluate": {"knn": {"k": 20}}}),
        ("moco-cifar10-demo", {"evaluate": {"knn": {"temperature": 0.15}}}),
        ("simo-imagenet", {"grid.0.methods": ["simmoco"]}),
        ("simo-imagenet", {"evaluate.linear.lrs": [30]}),
    ],
)
def test_nothing_stands_beside_another_setting(name, changes):
    assert beside(recipe(name))
    assert not beside(recipe(name, changes))


@pytest.mark.parametrize(
    "column",
    [
        *("dataset", "backbone", "method", "symmetric", "loss"),
        *("negatives", "temperature", "batch", "epochs"),
    ],
)
def test_a_number_whose_source_is_silent_stands_beside_nothing(published, tmp_path, column):
    file = tmp_path / "published.csv"
    published.to_csv(file, index=False)
    study = recipe("moco-cifar10-demo")
    assert beside(study, file)
    published.assign(**{column: ""}).to_csv(tmp_path / "silent.csv", index=False)
    assert not beside(study, tmp_path / "silent.csv")


def test_an_eqco_number_stands_beside_its_alpha(published, tmp_path):
    """And where α = K the number is InfoNCE's."""
    row = published[published["value"] == 68.1].assign(loss="eqco", alpha="256", value=68.5)
    file = tmp_path / "published.csv"
    pd.concat([published, row]).to_csv(file, index=False)
    block = {"grid.0.margins": [0, "eqco"]}
    assert beside(recipe("simo-imagenet", block), file) == [
        *BESIDE["simo-imagenet"],
        "simo m=eqco K=255 τ=0.2 N=256: 68.5 linear",
    ]
    assert beside(recipe("simo-imagenet", {**block, "alpha": 128}), file) == BESIDE["simo-imagenet"]
    assert beside(recipe("simo-imagenet", {**block, "alpha": 255}), file) == [
        *BESIDE["simo-imagenet"],
        "simo m=eqco K=255 τ=0.2 N=256: 68.036 linear; 68.1 linear",
    ]


def test_a_number_for_the_best_temperature_waits_for_all_of_them():
    """One temperature is not the best of several either."""
    sweep = {"grid": recipe("simclr-dcl-cifar10").model_dump()["grid"]}
    sweep["grid"][0]["batches"] = [32]
    study = recipe("simclr-dcl-cifar10", sweep)
    assert len(beside(study, accuracy=best_at_half)) == 2

    def unfinished(cell: Cell) -> float:
        missing = cell.temperature == 0.1 and cell.margin == 0
        return float("nan") if missing else best_at_half(cell)

    only = ["simclr m=inf K=62 τ=0.2 N=32: 87 linear, best τ"]
    assert beside(study, accuracy=unfinished) == only
    sweep["grid"][0]["temperatures"] = [0.5]
    assert not beside(recipe("simclr-dcl-cifar10", sweep))


def test_ours_stands_beside_the_papers_with_the_difference():
    """MoCo's notebook says 82.6 by kNN, and nothing by a linear probe at 200 epochs."""
    study = recipe("moco-cifar10-demo")
    table = tables.beside_published(table_of(study, lambda cell: 82.0), Grid(study), FILE)
    table = table.set_index("protocol")
    knn = "82.6 MoCo CIFAR-10 notebook (knn k=200 T=0.1, 128-d output)"
    assert table.loc["knn", "published"] == knn
    assert table.loc["knn", "difference"] == "-0.60"
    assert table.loc["linear-lbfgs", "published"] == ""
    assert table.loc["linear", "difference"] == ""


def test_a_study_without_published_numbers_has_no_such_columns():
    study = recipe("demo")
    table = table_of(study, lambda cell: 90.0)
    assert tables.beside_published(table, Grid(study), FILE).equals(table)


def test_elsewhere_nothing_is_found(tmp_path):
    assert not beside(recipe("moco-cifar10-demo"), tmp_path / "none")
