"""``eqco export``: the backbone of an encoder as a file that others load."""

from pathlib import Path

import torch

from eqco.errors import InputError
from eqco.evaluation.features import dataset_of, frozen_backbone
from eqco.networks.formats import FORMATS
from eqco.report.card import model_card
from eqco.runtime.files import write
from eqco.store.cells import read_encoder
from eqco.study.fields import TIMM
from eqco.study.recipe import Network

TOLERANCE = 1e-5  # of features, as a share of the largest, if that is above 1


def export(encoder: Path, to: str, out: Path, card: bool) -> None:
    """Write the backbone of an encoder, in eval mode, to a file in another format.

    The file's features of random images are compared with the backbone's before it is written.

    Args:
        encoder: file of the encoder; of a momentum method, the query encoder is exported.
        to: torchvision, timm, onnx or pt2.
        out: the file.
        card: whether to write a model card too, ``<out>.md``.

    Raises:
        InputError: if the file is no encoder, or none that this format has; if ``out`` is the
            encoder; if a package is missing; if the accuracies beside it are of another encoder;
            if features differ.
    """
    if out.resolve() == encoder.resolve():
        raise InputError(f"--out: {out}: is the encoder itself; allowed is any other file")
    saved = read_encoder(encoder)
    if saved.failed is not None:
        raise InputError(f"{encoder}: has no weights, as its training failed: {saved.failed}")
    network = Network.model_validate(saved.config["network"])
    by_timm = network.backbone.startswith(TIMM)
    if to in ("torchvision", "timm") and (
        network.backbone == "conv5" or (by_timm and to != "timm")
    ):
        raise InputError(
            f"{encoder}: network.backbone: {network.backbone}: {to} has no such network; allowed "
            f"are resnet18 and resnet50, or --to {'timm, ' * by_timm}onnx or pt2"
        )
    data = dataset_of(saved)
    backbone = frozen_backbone(saved, data.channels).to(memory_format=torch.contiguous_format)
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(3, data.channels, data.size, data.size, generator=draw)  # (B, C, H, W)
    content, features_of = FORMATS[to](backbone, network, images[:2])
    expected = backbone(images)  # (B, F)
    largest = max(1.0, float(expected.abs().max()))
    difference = float((features_of(images) - expected).abs().max()) / largest
    if not difference <= TOLERANCE:  # NaN too
        raise InputError(
            f"{out}: is not written: its features differ from the backbone's by {difference:.1e}; "
            f"allowed is {TOLERANCE:.0e}"
        )
    shapes = {"images": list(images.shape[1:]), "features": expected.shape[1]}
    text = model_card(saved, encoder, to, out.name, shapes) if card else None
    write(out, content)
    if text is not None:
        write(out.with_name(f"{out.name}.md"), text)
    size = ", ".join(map(str, shapes["images"]))
    print(f"{out}: normalised images (B, {size}) to features (B, {shapes['features']})")
