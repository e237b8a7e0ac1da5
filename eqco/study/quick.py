"""A study shrunk to minutes on a CPU, to try its path from images to table.

``snakemake --configfile params/<study>.yaml --config quick=true`` runs it as a study of its own.
"""

import math
from itertools import product
from typing import Any

from eqco.runtime.files import canonical
from eqco.study.cell import Block
from eqco.study.load import parse_study
from eqco.study.methods import METHODS
from eqco.study.study import Study

IMAGES = 512  # of Fashion-MNIST
PER_CLASS = 8  # images of a folder or an archive
SIDE = 48  # pixels
BATCH = 16
QUEUE = 64
SHRUNK = ("batch", "epochs", "precision", "warmup_epochs")  # keys of the recipe


def shrink(study: Study) -> Study:
    """The study with few images, small, in small batches, two epochs; network and recipe stay.

    Every method, loss and margin stays. Every other axis keeps its first value, and K is at most
    what the small batch allows. Duplicate cells become one.
    """
    values = study.model_dump(mode="json")
    values["study"] += "-quick"
    for key in ("select", "comparisons", "claims"):  # an axis keeps its first value
        values.pop(key, None)
    data, recipe, evaluate = (values[key] for key in ("data", "pretrain", "evaluate"))
    for one in (data, *evaluate.get("on", [])):
        _shrink_data(one)
    values["network"].pop("weights", None)  # a ViT's may be of images of another size
    groups = math.lcm(*(variant.study.network.batch_norm_groups for variant in study.variants))
    recipe |= {"batch": max(BATCH // groups, 2) * groups, "epochs": 2}
    recipe["precision"] = "float32"  # many CPUs emulate bfloat16, at a tenth of the speed
    recipe["warmup_epochs"] = min(recipe["warmup_epochs"], 0.5)
    recipe["queue"] = min(recipe["queue"], QUEUE) if recipe["queue"] else None
    if count := values["loss"].get("scalar_negatives"):
        values["loss"]["scalar_negatives"] = min(count, recipe["batch"] - 1)
    evaluate["linear"] |= {"epochs": 2, "drops": [1], "batch": 32}
    if evaluate["linear_lbfgs"]:
        # a share of so few images would leave classes without a label
        evaluate["linear_lbfgs"] |= {"iterations": 5, "labels": None}
    if evaluate.get("finetune"):
        evaluate["finetune"] |= {"epochs": 1, "batch": BATCH}
    blocks = (_cells(block, recipe) for block in study.grid)
    different = {canonical(cell): cell for cells in blocks for cell in cells}
    return parse_study({**values, "grid": list(different.values())}, f"{study.study}, quick")


def _shrink_data(data: dict[str, Any]) -> None:
    """Few images in a dataset's section, and small ones."""
    if "train_images" in data:
        data["train_images"] = min(data["train_images"], IMAGES)
    if "validation" in data:
        data["validation"] = min(data["validation"], PER_CLASS)
    if "path" in data:
        data["name"] += "-quick"
    if "size" in data:
        data["images_per_class"] = PER_CLASS
        if data.get("name") != "stl10":  # which has one size
            data["size"] = min(data["size"], SIDE)
    if "short_side" in data:
        data["short_side"] = min(data["short_side"], SIDE * 8 // 7)


def _cells(block: Block, recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """A block for each of its methods, losses and margins."""
    values = block.model_dump(mode="json")
    first = {key: some and some[:1] for key, some in values.items() if key != "with"}
    if block.batches:
        first["batches"] = [recipe["batch"]]
    if "with" in values:
        mapping = values["with"][0] if isinstance(values["with"], list) else values["with"]
        first["with"] = {key: _first(key, some, recipe) for key, some in mapping.items()}
    if block.negatives == "all":
        first["negatives"] = "all"
    else:
        queue = first.get("with", {}).get("pretrain.queue", [recipe["queue"]])[0]
        candidates = [
            METHODS[method].candidates(recipe["batch"], queue) for method in block.methods
        ]
        if "dcl-by-scalar-negatives" in (block.losses or []):  # a queue has to be longer than K
            candidates.append(recipe["batch"] - 1)
        first["negatives"] = [min(block.negatives[0], *(most or QUEUE for most in candidates))]
    return [
        {**first, "methods": [method], "losses": loss and [loss], "margins": [margin]}
        for method, loss, margin in product(
            values["methods"], values["losses"] or [None], values["margins"]
        )
    ]


def _first(key: str, values: list[Any], recipe: dict[str, Any]) -> list[Any]:
    """The first value of an axis, or what the quick recipe has in its place."""
    if key == "pretrain.queue" and values[0]:
        return [min(values[0], QUEUE)]
    if key == "loss.scalar_negatives" and values[0]:
        return [min(values[0], recipe["batch"] - 1)]
    if key == "network.weights":
        return [None]
    section, _, name = key.partition(".")
    return [recipe[name]] if section == "pretrain" and name in SHRUNK else values[:1]
