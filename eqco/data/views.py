"""Augmented views of a dataset's images, batch by batch in a random order."""

from collections.abc import Iterator
from copy import copy
from pathlib import Path

import torch
from torch import Tensor

from eqco.data.augmentation import Augmentation, crop_boxes
from eqco.data.jpegs import Jpegs, in_workers
from eqco.data.packed import images_of, load, read_manifest
from eqco.data.validation import to_validate
from eqco.errors import InputError
from eqco.runtime.ranks import share
from eqco.runtime.seeds import draw_seed
from eqco.study.datasets import Data
from eqco.study.recipe import Augment


class Views:
    """The views of every step, a function of the seed and the step alone.

    If the images are an array, a step's views are made on the device at once. If they are JPEGs,
    worker processes decode and crop them a few steps ahead, one per CPU thread of this process.
    Each of several ranks makes its share of the views.

    Args:
        data: folder of the packed dataset.
        spec: the study's dataset.
        params: the augmentation.
        batch: N, of all ranks together; the last, smaller batch of an epoch is dropped.
        batch_key: the study's key for the batch, for messages.
        views: V, views of each image.
        epochs: the number of epochs.
        seed: of the order and the views.
        device: for the views.
        split: of the dataset.

    Attributes:
        labels: of the whole split, int64; -1 of an image without one.
        rows: the images of the split that are not to validate (M,).
        channels: C.
        steps_per_epoch: batches in an epoch.
        steps: steps of all epochs.

    Raises:
        InputError: if the batch or ``data.validation`` is larger than the data allows.
    """

    def __init__(
        self,
        data: Path,
        spec: Data,
        params: Augment,
        *,
        batch: int,
        batch_key: str = "pretrain.batch",
        views: int,
        epochs: int,
        seed: int,
        device: torch.device,
        split: str = "train",
    ) -> None:
        tensors = load(data, split, spec.images)
        self.labels = tensors["labels"]
        self.images = images_of(tensors, spec)
        kept = ~to_validate(self.labels, spec) if split == "train" else self.labels == -1
        self.rows = kept.nonzero().flatten()  # (M,)
        if batch > len(self.rows):
            raise InputError(f"{batch_key}: {batch}: {data} has {len(self.rows)} training images")
        self.batch, self.views, self.seed, self.device = batch, views, seed, device
        self.steps_per_epoch = len(self.rows) // batch
        self.steps = epochs * self.steps_per_epoch
        self.crop = params.crop
        if isinstance(self.images, Jpegs):
            self.channels = 3
            params = params.model_copy(
                update={"crop": None}
            )  # JPEGs are cropped as they are decoded
        else:
            self.channels = self.images.shape[1]
            memory = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
            if self.images.nbytes < memory / 2:
                self.images = self.images.to(device)
        manifest = read_manifest(data)
        mean, std = (torch.tensor(manifest[name], device=device) for name in ("mean", "std"))
        self.augment = Augmentation(params, mean, std, share())
        self._order: tuple[int, Tensor] | None = None  # epoch, its images in order (M,)
        self._ahead: tuple[int, Iterator[Tensor]] | None = None  # next step, its images on

    def __len__(self) -> int:
        return self.steps

    def visit(self, step: int) -> Tensor:
        """The indices of the images in a step's batch, (N,), in the whole training split."""
        epoch, i = divmod(step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(draw_seed(self.seed, "order", epoch))
            order = self.rows[torch.randperm(len(self.rows), generator=generator)]
            device = self.images.device if isinstance(self.images, Tensor) else None
            self._order = epoch, order.to(device)
        return self._order[1][i * self.batch : (i + 1) * self.batch]

    def __call__(self, step: int) -> list[Tensor]:
        """The V views of this rank's n images of a step, (n, C, H, W) float each."""
        if isinstance(self.images, Jpegs):
            images = self._decoded(step).to(self.device, non_blocking=True)
        else:
            images = self.images[share()(self.visit(step))].to(self.device, non_blocking=True)
            images = images.repeat(self.views, 1, 1, 1)  # (V n, C, H, W) uint8
        views = self.augment(images, draw_seed(self.seed, "views", step))
        return list(views.chunk(self.views))

    def __getitem__(self, step: int) -> Tensor:
        """The crops of this rank's n JPEGs of a step, (V n, 3, S, S) uint8.

        Called in a worker process.
        """
        assert isinstance(self.images, Jpegs)
        visit = share()(self.visit(step))  # (n,)
        sizes = self.images.sizes[visit].repeat(self.views, 1)  # (V n, 2)
        if self.crop:
            seed = draw_seed(self.seed, "crops", step)
            boxes = crop_boxes(sizes, self.crop, seed, share()).view(self.views, len(visit), 4)
        else:
            boxes = self.images.centres(visit).expand(self.views, -1, 4)
        crops = [self.images.crops(i, boxes[:, j]) for j, i in enumerate(visit.tolist())]
        return torch.stack(crops, dim=1).flatten(0, 1)

    def _decoded(self, step: int) -> Tensor:
        if self._ahead is None or self._ahead[0] != step:
            self._ahead = None  # the workers of another place in the order end here
            # theirs is a copy: an iterator that led back to itself would end with the collector of
            # cycles, which closes queues first, and then waits five seconds for every worker
            self._ahead = step, in_workers(copy(self), range(step, self.steps), self.device)
        images = next(self._ahead[1])
        self._ahead = step + 1, self._ahead[1]
        return images
