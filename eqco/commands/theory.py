"""``eqco theory``: EqCo's two statements against K, on a study's images and encoders."""

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from eqco.data.augmentation import Augmentation
from eqco.data.packed import load, read_manifest
from eqco.data.validation import to_validate
from eqco.errors import InputError
from eqco.losses.similarities import l2_normalize
from eqco.losses.theory import curves
from eqco.networks.encoder import Encoder
from eqco.report import figures
from eqco.runtime.files import write
from eqco.runtime.seeds import draw_seed
from eqco.store.cells import read_encoder
from eqco.study.study import Study


def write_theory(study: Study, data: Path, out: Path, encoder: Path | None) -> str:
    """Write theory.csv, theory.md and the figures theory.svg and theory.png.

    Args:
        study: the study, whose α, τ, network and augmentation are used.
        data: folder of the packed dataset.
        out: folder for the files.
        encoder: a trained encoder of the study's network, shown beside the untrained one.

    Returns:
        The text of theory.md.

    Raises:
        InputError: if the encoder is of another network.
    """
    parts = []
    for name, model in encoders_of(study, len(read_manifest(data)["mean"]), encoder).items():
        q, k = embeddings(model, study, data)
        rows = curves(q, k, alpha=study.alpha, temperature=study.temperature, generator=_generator)
        parts.append(pd.DataFrame(rows).assign(encoder=name))
    table = pd.concat(parts)
    table = table[["encoder", *(name for name in table if name != "encoder")]]
    write(out / "theory.csv", table.to_csv(index=False, float_format="%.4f"))
    text = table.to_markdown(index=False, floatfmt=".3f") + "\n"
    write(out / "theory.md", text)
    title = f"{study.study}: α = {study.alpha:g}, τ = {study.temperature:g}"
    figures.save(figures.theory(table, title), out / "theory")
    return text


def encoders_of(study: Study, channels: int, trained: Path | None) -> dict[str, Encoder]:
    """The study's encoder with random weights, and with those of a file.

    Args:
        study: the study.
        channels: of an image.
        trained: file of an encoder, or None.

    Raises:
        InputError: if the file's encoder is of another network.
    """
    encoders = {"initial": initial(study, channels)}
    if trained is not None:
        encoders["trained"] = initial(study, channels)
        try:
            encoders["trained"].load_state_dict(read_encoder(trained).tensors)
        except RuntimeError:
            raise InputError(f"{trained}: is not of the network of {study.study}") from None
    return encoders


def initial(study: Study, channels: int) -> Encoder:
    """The study's encoder with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(draw_seed(0, "weights", 0))
        return Encoder(study.network, channels, study.data.size)


def embeddings(encoder: Encoder, study: Study, data: Path, images: int = 1024) -> list[Tensor]:
    """Unit embeddings (M, D) of two views of the first M training images.

    The encoder is in train mode, as in a step of its training: batch norm sees the M views.
    """
    manifest = read_manifest(data)
    split = load(data, "train", study.data.images)
    rows = (~to_validate(split["labels"], study.data)).nonzero().flatten()[:images]
    batch = split["images"][rows]
    mean, std = (torch.tensor(manifest[name]) for name in ("mean", "std"))
    augment = Augmentation(study.augment, mean, std)
    views = augment(batch.repeat(2, 1, 1, 1), draw_seed(0, "views", 0)).chunk(2)
    with torch.no_grad():
        return [l2_normalize(encoder.train()(view)) for view in views]


def _generator(negatives: int) -> torch.Generator:
    """The source of randomness for the draws of K negatives."""
    return torch.Generator().manual_seed(draw_seed(0, "negatives", negatives))
