"""Training loops of lightly for SimCLR and MoCo, as in its documentation; ``step`` runs them."""

import copy
from collections.abc import Iterator
from pathlib import Path

import torch
from lightly.loss import NTXentLoss
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from eqco.data.packed import load, read_manifest
from eqco.networks.encoder import Encoder
from eqco.study.cell import Cell
from eqco.study.study import Study


class Decoded(Dataset):
    """Decoded images in memory; an item is the list of an image's two views."""

    def __init__(self, packed: Path, study: Study) -> None:
        images = load(packed, "train")["images"].permute(0, 2, 3, 1).numpy()
        self.images = [Image.fromarray(image) for image in images]
        manifest, augment = read_manifest(packed), study.augment
        assert augment.jitter
        assert augment.crop
        self.transform = SimCLRTransform(
            input_size=images.shape[1],
            cj_prob=augment.jitter.p,
            cj_bright=augment.jitter.brightness,
            cj_contrast=augment.jitter.contrast,
            cj_sat=augment.jitter.saturation,
            cj_hue=augment.jitter.hue,
            min_scale=augment.crop[0],
            random_gray_scale=augment.grayscale,
            gaussian_blur=0.0,
            hf_prob=augment.flip,
            normalize={"mean": manifest["mean"], "std": manifest["std"]},
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        return self.transform(self.images[index])


def steps(study: Study, cell: Cell, packed: Path) -> Iterator[None]:
    """An endless sequence of training steps."""
    loader = DataLoader(
        Decoded(packed, study), cell.batch, shuffle=True, drop_last=True, num_workers=2
    )
    encoder = Encoder(study.network, channels=3).train()
    momentum = cell.method == "moco"
    key_encoder = copy.deepcopy(encoder)
    deactivate_requires_grad(key_encoder)
    bank = (cell.negatives, encoder.dim) if momentum else 0
    criterion = NTXentLoss(temperature=cell.temperature, memory_bank_size=bank)
    recipe = study.pretrain
    optimizer = torch.optim.SGD(
        encoder.parameters(), cell.lr, recipe.momentum, weight_decay=recipe.weight_decay
    )
    while True:
        for view1, view2 in loader:
            if momentum:
                update_momentum(encoder, key_encoder, recipe.ema)
                query = encoder(view1)
                with torch.no_grad():
                    key = key_encoder(view2)
                loss = criterion(query, key)
            else:
                loss = criterion(encoder(view1), encoder(view2))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            yield
