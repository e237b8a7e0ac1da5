"""The expansion of a grid: from the lists of its blocks to its cells and their paths."""

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from eqco.study.axes import KEYS, LISTS, With, hashable, name_of, text
from eqco.study.cell import Cell
from eqco.study.fields import LOSS_SETTINGS
from eqco.study.methods import METHODS

if TYPE_CHECKING:
    from eqco.study.study import Study

# keys of the recipe that have a field in every cell
FIELDS = {
    "alpha": "alpha",
    "temperature": "temperature",
    "pretrain.batch": "batch",
    "pretrain.lr": "lr",
}


class Choice(NamedTuple):
    """A value of an axis, and the place of the study file that gives it."""

    value: Any
    place: str


class Place(NamedTuple):
    """A cell, its path and the number of the block that holds it."""

    block: int
    path: str
    cell: Cell


class Variant(NamedTuple):
    """The study with one value for each key of the recipe that a block lists."""

    block: int
    study: "Study"
    places: dict[str, str]

    def place(self, key: str) -> str:
        """The place of the study file that gives a key of the recipe."""
        return self.places.get(key, key)


def choices(study: "Study", b: int) -> Iterator[dict[str, list[Choice]]]:
    """The values that a block lists for keys of the recipe, for each mapping of its ``with``.

    A block's own keys (``lrs``) are short for keys of the recipe (``pretrain.lr``).
    """
    block = study.grid[b]
    own = {
        key: [Choice(value, f"grid.{b}.{name}.{i}") for i, value in enumerate(values)]
        for name, key in LISTS.items()
        if (values := getattr(block, name))
    }
    if isinstance(block.with_, list):
        mappings = [(f"with.{i}", mapping) for i, mapping in enumerate(block.with_)]
    else:
        mappings = [("with", block.with_ or With())]
    for place, mapping in mappings:
        listed = {
            key: [
                Choice(hashable(value), f"grid.{b}.{place}.{key}.{i}")
                for i, value in enumerate(values)
            ]
            for key, values in mapping.model_dump().items()
        }
        yield {**own, **listed}


def variants(study: "Study") -> Iterator[Variant]:
    """Every recipe of the study: each block with each combination of the values it lists."""
    for b in range(len(study.grid)):
        for listed in choices(study, b):
            keys = [key for key in listed if "." in key]
            for chosen in product(*(listed[key] for key in keys)):
                values = tuple(zip(keys, (choice.value for choice in chosen), strict=True))
                places = dict(zip(keys, (choice.place for choice in chosen), strict=True))
                yield Variant(b, study.changed(values), places)


def axes(study: "Study") -> list[str]:
    """The names of the axes in the path of each cell, in order.

    Method, negatives, margin and seed are always there; the others if a block lists values for
    them; the learning rate also if it follows the batch, and a block lists batches.
    """
    loss = ["loss"] * any(block.losses is not None for block in study.grid)
    return ["method", *loss, "negatives", "margin", *map(name_of, _listed(study)), "seed"]


def expand(study: "Study") -> Iterator[Place]:
    """The cells of a study's grid: every combination of each block's lists, in the file's order.

    The batch is the outermost axis of a block. What a block does not list is the recipe's.
    """
    names, listed = axes(study), _listed(study)
    keys = [key for key in KEYS if key in listed or key in FIELDS]
    for b, block in enumerate(study.grid):
        for chosen in choices(study, b):
            lists: dict[str, list[Any]] = {
                "pretrain.batch": [],
                "method": block.methods,
                "loss": block.losses or ["info-nce"],
                "negatives": ["all"] if block.negatives == "all" else block.negatives,
                "margin": block.margins,
            }
            for key in keys:
                options = chosen.get(key, [Choice(hashable(study.value(key)), key)])
                lists[key] = [value for value, _ in options]
            lists["seed"] = [*_deciding(study, lists), *block.seeds]
            for combination in product(*lists.values()):
                yield _place(study, b, dict(zip(lists, combination, strict=True)), names, listed)


def _deciding(study: "Study", lists: dict[str, list[Any]]) -> list[int]:
    """The seeds that select a value, of a block's lists with several values to select from."""
    if not study.select:
        return []
    several = any(
        name_of(key) == study.select.axis and len(values) > 1 for key, values in lists.items()
    )
    return study.select.seeds if several else []


def _listed(study: "Study") -> list[str]:
    """The keys of the recipe that are in every path, in its order."""
    blocks = range(len(study.grid))
    found = {key for b in blocks for listed in choices(study, b) for key in listed}
    if "pretrain.batch" in found and (study.pretrain.lr_per or "pretrain.lr_per" in found):
        found.add("pretrain.lr")
    return [key for key in KEYS if key in found]


def _place(
    study: "Study", block: int, values: dict[str, Any], names: list[str], listed: list[str]
) -> Place:
    """The cell of one combination of values, by axis or key of the recipe."""
    read = {f"loss.{name}" for name in LOSS_SETTINGS.get(values["loss"], ())}
    settings = tuple(
        (key, values[key])
        for key in listed
        if key not in FIELDS and (key in read or not key.startswith("loss."))
    )
    recipe, batch = study.changed(settings).pretrain, values["pretrain.batch"]
    values["pretrain.lr"] = recipe.scaled(values["pretrain.lr"], batch)
    if values["negatives"] == "all":
        values["negatives"] = METHODS[values["method"]].candidates(batch, recipe.queue)
    by_name = {name_of(key): value for key, value in values.items()}
    path = "/".join(f"{name}~{text(by_name[name])}" for name in names)
    if values["margin"] != "eqco":  # only EqCo's margin reads α
        by_name["alpha"] = None
    fields = {name: by_name[name] for name in Cell.model_fields if name != "settings"}
    return Place(block, path, Cell.model_validate({**fields, "settings": settings}))
