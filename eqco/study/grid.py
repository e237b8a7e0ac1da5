"""The cells of a study: blocks of methods x negatives x margins x seeds, and their paths."""

from itertools import product

from eqco.errors import InputError
from eqco.study.cell import Block, Cell
from eqco.study.study import Study, config_hash

AXES = {  # of a cell, in the order of its path, and the block's key that lists their values
    "method": "methods",
    "loss": "losses",
    "negatives": "negatives",
    "margin": "margins",
    "alpha": "alphas",
    "temperature": "temperatures",
    "batch": "batches",
    "lr": "lrs",
    "weight_decay": "weight_decays",
    "seed": "seeds",
}


def axes(study: Study) -> list[str]:
    """The axes that name a cell of this study, in the order of its path.

    Method, negatives, margin and seed are always there; the others where a block of the grid makes
    them an axis.
    """
    always = ("methods", "negatives", "margins", "seeds")
    return [
        name
        for name, key in AXES.items()
        if key in always or any(getattr(block, key) for block in study.grid)
    ]


def text(value: str | float) -> str:
    """An axis value as it stands in paths and tables: ``simo``, ``16``, ``0.2``, ``inf``."""
    return value if isinstance(value, str) else f"{value:.12g}"


def cells(study: Study, source: str = "study") -> dict[str, Cell]:
    """Every cell by its path, e.g. ``method~simo/negatives~16/margin~eqco/seed~0``.

    Raises:
        InputError: when two blocks, or one, name the same cell twice.
    """
    names = axes(study)
    by_path: dict[str, Cell] = {}
    block_of: dict[Cell, int] = {}
    for b, block in enumerate(study.grid):
        for cell, values in _expand(study, block):
            path = "/".join(f"{name}~{text(values[name])}" for name in names)
            if cell in block_of:
                raise InputError(
                    f"{source}: grid.{b}: {path}: is in grid.{block_of[cell]} already; "
                    "a cell may stand in the grid only once"
                )
            block_of[cell] = b
            by_path[path] = cell
    return by_path


def _expand(study: Study, block: Block) -> list[tuple[Cell, dict[str, str | float]]]:
    defaults: dict[str, str | float] = {
        "loss": "info-nce",
        "alpha": study.alpha,
        "temperature": study.temperature,
        "batch": study.pretrain.batch,
        "lr": study.pretrain.lr,
        "weight_decay": study.pretrain.weight_decay,
    }
    lists = [getattr(block, key) or [defaults[name]] for name, key in AXES.items()]
    named = axes(study)
    expanded = []
    for combination in product(*lists):
        values: dict[str, str | float] = dict(zip(AXES, combination, strict=True))
        parts = {
            **values,
            # α is a part of the cell only where the loss reads it
            "alpha": values["alpha"] if values["margin"] == "eqco" else None,
            "weight_decay": values["weight_decay"] if "weight_decay" in named else None,
        }
        expanded.append((Cell.model_validate(parts), values))
    return expanded


def hashes(study: Study, grid: dict[str, Cell]) -> dict[str, str]:
    """The hash of every cell's configuration by its path, of the grid that ``cells`` gives."""
    return {path: config_hash(study.resolve(cell)) for path, cell in grid.items()}


def find(study: Study, path: str, source: str = "study") -> Cell:
    """The cell at ``path``; raises InputError when the grid has none there."""
    by_path = cells(study, source)
    if path not in by_path:
        raise InputError(
            f"{source}: no cell {path!r} in its grid; the first is {next(iter(by_path))!r}"
        )
    return by_path[path]
