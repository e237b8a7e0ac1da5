"""The rules of what may not be combined in a study: one generator function each.

A rule yields a problem for each breach: the key, its value, and what is allowed.
"""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from eqco.study.axes import LISTS, text
from eqco.study.cell import Cell
from eqco.study.claims import claims_have_a_comparison, comparisons_can_be_made
from eqco.study.expansion import axes, choices
from eqco.study.fields import TIMM, WITH_MARGIN
from eqco.study.methods import METHODS, queued
from eqco.study.protocols import KEY_SUFFIX, VALIDATION_SUFFIX
from eqco.study.recipe import Pretrain
from eqco.study.selection import split
from eqco.study.weights import find_weights

if TYPE_CHECKING:
    from eqco.study.study import Study

Problem = tuple[str, Any, str]
SUFFIXES = (KEY_SUFFIX, VALIDATION_SUFFIX)  # of protocols, which no dataset is called as


def each_key_once(study: "Study") -> Iterator[Problem]:
    """A key of the recipe is an axis of a block by one of its lists alone."""
    for b, block in enumerate(study.grid):
        named = {key: name for name, key in LISTS.items() if getattr(block, name)}
        for listed in choices(study, b):
            for key, options in listed.items():
                if key in named and not options[0].place.startswith(f"grid.{b}.{named[key]}."):
                    allowed = f"grid.{b}.{named[key]} lists this key already"
                    yield options[0].place.rpartition(".")[0], options[0].value, allowed


def axes_fit_the_recipe(study: "Study") -> Iterator[Problem]:
    """A value of an axis is one that its section of the recipe allows."""
    for b in range(len(study.grid)):
        for listed in choices(study, b):
            for key, options in listed.items():
                section = key.rpartition(".")[0]
                for value, place in options if section else []:
                    if study.value(section) is None:
                        yield place, value, f"the recipe has no {section}"
                        continue
                    try:
                        study.changed(((key, value),))
                    except ValidationError as error:
                        message = error.errors()[0]["msg"]
                        yield place, value, message[:1].lower() + message[1:]


def validation_leaves_images(study: "Study") -> Iterator[Problem]:
    """``data.validation`` leaves images to train on."""
    images, count = study.data.images, study.data.validation
    if images is not None and count and count >= images:
        yield "data.validation", count, f"the data has {images} training images"


def transfers_are_to_others(study: "Study") -> Iterator[Problem]:
    """``evaluate.on`` names other datasets, each once, whose images the encoder takes."""
    names = [study.data.name, *(suffix.removeprefix("@") for suffix in SUFFIXES)]
    for i, other in enumerate(study.evaluate.on):
        key = f"evaluate.on.{i}"
        if other.name in names:
            yield f"{key}.name", other.name, "must be another name than each of " + ", ".join(names)
        names.append(other.name)
        if other.channels != study.data.channels:
            allowed = f"its images have {other.channels} channels, the encoder takes "
            yield f"{key}.name", other.name, f"{allowed}{study.data.channels}"
        if other.validation:
            yield f"{key}.validation", other.validation, "must be left out: nothing is chosen by it"


def batches_fit_the_data(study: "Study") -> Iterator[Problem]:
    """A batch has at most as many images as the training set."""
    images = study.data.images
    for variant in study.variants:
        batch = variant.study.pretrain.batch
        if images is not None and batch > (train := study.data.train_size(images)):
            yield variant.place("pretrain.batch"), batch, f"the data has {train} training images"


def residual_branches(study: "Study") -> Iterator[Problem]:
    """``network.zero_init_residual`` needs a network with residual branches."""
    for variant in study.variants:
        network = variant.study.network
        if network.zero_init_residual and network.backbone == "conv5":
            key = variant.place("network.zero_init_residual")
            yield key, "true", "conv5 has no residual branches: must be false"


def models_of_timm(study: "Study") -> Iterator[Problem]:
    """A model of timm is as timm makes it."""
    for variant in study.variants:
        network = variant.study.network
        for key, value, default in (
            ("stem", network.stem, "large"),
            ("zero_init_residual", network.zero_init_residual, False),
        ):
            if network.backbone.startswith(TIMM) and value != default:
                allowed = f"{network.backbone} has no such choice: must be {text(default)}"
                yield variant.place(f"network.{key}"), text(value), allowed


def weights_to_start_from(study: "Study") -> Iterator[Problem]:
    """``network.weights`` is a file: the hash of a configuration has its content."""
    for variant in study.variants:
        file = variant.study.network.weights
        if file is not None and find_weights(file) is None:
            allowed = "is no file, neither from the working folder nor from one above it"
            yield variant.place("network.weights"), file, allowed


def batches_split_evenly(study: "Study") -> Iterator[Problem]:
    """A batch splits into equal groups of batch norm."""
    for variant in study.variants:
        batch, groups = variant.study.pretrain.batch, variant.study.network.batch_norm_groups
        if batch % groups:
            allowed = f"must be a multiple of batch_norm_groups, {groups}"
            yield variant.place("pretrain.batch"), batch, allowed


def enough_candidates(study: "Study") -> Iterator[Problem]:
    """K is at most the number of candidates that a method draws its negatives from."""
    for b, _, method, recipe in _methods(study):
        most = METHODS[method].candidates(recipe.batch, recipe.queue)
        negatives = study.grid[b].negatives
        for i, k in enumerate(negatives if negatives != "all" else []):
            if most is not None and k > most:
                allowed = f"{method} allows 1 to {most}, the negatives to draw from"
                yield f"grid.{b}.negatives.{i}", k, f"{allowed} at batch {recipe.batch}"


def all_candidates(study: "Study") -> Iterator[Problem]:
    """``negatives: all`` needs a method whose candidates are counted."""
    for b, _, method, recipe in _methods(study):
        counted = METHODS[method].candidates(recipe.batch, recipe.queue) is not None
        if study.grid[b].negatives == "all" and not counted:
            yield f"grid.{b}.negatives", "all", f"{method} needs pretrain.queue, its length"


def symmetric_methods(study: "Study") -> Iterator[Problem]:
    """``pretrain.symmetric`` needs methods for which it is a choice."""
    for _, key, method, recipe in _methods(study):
        if recipe.symmetric and not METHODS[method].symmetric:
            able = ", ".join(name for name, entry in METHODS.items() if entry.symmetric)
            yield key, method, f"pretrain.symmetric is a choice of {able} alone"


def batch_norm_of_views(study: "Study") -> Iterator[Problem]:
    """``pretrain.batch_norm_per_view`` is a choice of SimCLR: the others have no other way."""
    for _, key, method, recipe in _methods(study):
        if recipe.batch_norm_per_view and method != "simclr":
            yield key, method, "pretrain.batch_norm_per_view is a choice of simclr alone"


def online_classifiers(study: "Study") -> Iterator[Problem]:
    """All cells of a study have a row for ``linear-online``, or none has; it needs labels."""
    without = [variant for variant in study.variants if not variant.study.pretrain.online]
    for variant in study.variants:
        online = variant.study.pretrain.online
        if online and study.data.pretrained_on == "unlabelled":
            told = f"{study.data.name} is pretrained on images without labels: must be left out"
            yield variant.place("pretrain.online"), online, told
    if 0 < len(without) < len(study.variants):
        yield without[0].place("pretrain.online"), None, "other cells have one: all must, or none"


def key_encoders(study: "Study") -> Iterator[Problem]:
    """``evaluate.key_encoder`` needs methods that have one."""
    for _, key, method, _ in _methods(study):
        if study.evaluate.key_encoder and not METHODS[method].momentum:
            able = ", ".join(name for name, entry in METHODS.items() if entry.momentum)
            yield key, method, f"evaluate.key_encoder is a choice of {able} alone"


def support_set(study: "Study") -> Iterator[Problem]:
    """NNCLR needs the length of its support set."""
    for _, key, method, recipe in _methods(study):
        if method == "nnclr" and not recipe.queue:
            yield key, method, "needs pretrain.queue, the length of its support set"


def margins_where_they_are_read(study: "Study") -> Iterator[Problem]:
    """A margin belongs to InfoNCE, to the controls that have its weights, and to SigLIP's loss."""
    for b, block in enumerate(study.grid):
        for i, loss in enumerate(block.losses or []):
            if loss not in WITH_MARGIN and block.margins != [0]:
                yield f"grid.{b}.losses.{i}", loss, "has no margin: margins must be [0]"
            if loss == "siglip" and math.inf in block.margins:
                place = f"grid.{b}.margins.{block.margins.index(math.inf)}"
                yield place, "inf", "siglip needs margins that are finite"


def selection_has_values(study: "Study") -> Iterator[Problem]:
    """``select`` names an axis with several values, a validation protocol and seeds of its own."""
    select = study.select
    if select is None:
        return
    names = [name for name in axes(study) if name != "seed"]
    if select.axis not in names:
        yield "select.axis", select.axis, f"not an axis of the grid; allowed: {', '.join(names)}"
        return
    allowed = [name for name in study.protocols if name.endswith(VALIDATION_SUFFIX)]
    if not study.data.validation:
        missing = "needs data.validation, the number of validation images"
        yield "select.protocol", select.protocol, missing
    elif select.protocol not in allowed:
        yield "select.protocol", select.protocol, f"must be one of {', '.join(allowed)}"
    for b, block in enumerate(study.grid):
        for i, seed in enumerate(block.seeds):
            if seed in select.seeds:
                yield f"grid.{b}.seeds.{i}", seed, "select.seeds has it: a seed selects or confirms"
    blocks: dict[str, set[int]] = {}
    several = False
    for b, path, cell in study.places:
        several |= cell.seed in select.seeds
        blocks.setdefault(split(path, select.axis)[0], set()).add(b)
    for arm, places in blocks.items():
        if len(places) > 1:
            first, second, *_ = sorted(places)
            message = f"is in grid.{first} too; list its values of {select.axis} in one block"
            yield f"grid.{second}", arm, message
    if not several:
        yield "select.axis", select.axis, "no block lists several values of it to select from"


def scalar_negatives(study: "Study") -> Iterator[Problem]:
    """K_s is given where a loss reads it, and is drawn with K, in random order."""
    loss = "dcl-by-scalar-negatives"
    for variant in study.variants:
        b, recipe, count = (
            variant.block,
            variant.study.pretrain,
            variant.study.loss.scalar_negatives,
        )
        if loss not in (losses := study.grid[b].losses or []):
            continue
        if count is None:
            yield f"grid.{b}.losses.{losses.index(loss)}", loss, "needs loss.scalar_negatives, K_s"
            continue
        for i, method in enumerate(study.grid[b].methods):
            candidates = METHODS[method].candidates
            most = candidates(recipe.batch, recipe.queue)
            k = study.grid[b].negatives
            if candidates is queued and not (most and k != "all" and max(count, *k) < most):
                # the whole queue is in its own order
                allowed = f"{loss} needs a pretrain.queue longer than K and K_s"
                yield f"grid.{b}.methods.{i}", method, allowed
            elif most is not None and count > most:
                allowed = f"{method} allows 1 to {most}, the negatives to draw from"
                yield variant.place("loss.scalar_negatives"), count, allowed


def each_cell_once(study: "Study") -> Iterator[Problem]:
    """A cell stands in the grid only once."""
    block_of: dict[Cell, int] = {}
    for b, path, cell in study.places:
        if cell in block_of:
            allowed = f"is in grid.{block_of[cell]} already; a cell may stand in the grid only once"
            yield f"grid.{b}", path, allowed
        block_of[cell] = b


RULES: tuple[Callable[["Study"], Iterator[Problem]], ...] = (
    each_key_once,
    axes_fit_the_recipe,
    validation_leaves_images,
    transfers_are_to_others,
    batches_fit_the_data,
    batches_split_evenly,
    residual_branches,
    models_of_timm,
    weights_to_start_from,
    enough_candidates,
    all_candidates,
    symmetric_methods,
    batch_norm_of_views,
    online_classifiers,
    key_encoders,
    support_set,
    margins_where_they_are_read,
    selection_has_values,
    scalar_negatives,
    each_cell_once,
    comparisons_can_be_made,
    claims_have_a_comparison,
)


def _methods(study: "Study") -> Iterator[tuple[int, str, str, Pretrain]]:
    """Every method of each recipe: its block's number, its key, its name and the recipe."""
    for variant in study.variants:
        for i, method in enumerate(study.grid[variant.block].methods):
            key = f"grid.{variant.block}.methods.{i}"
            yield variant.block, key, method, variant.study.pretrain
