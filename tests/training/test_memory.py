"""The least memory of a step: what it counts, and for which ranks it can be asked."""

import pytest
import torch
import torch.distributed as dist
from helpers import ROOT, cells
from torch import nn

from eqco.errors import InputError
from eqco.study.load import load_study
from eqco.study.quick import shrink
from eqco.study.study import Study
from eqco.training import cost as memory


def recipe(name: str) -> Study:
    return load_study(ROOT / "params" / f"{name}.yaml")


@pytest.mark.parametrize("name", ["demo", "moco-cifar10-demo", "simclr-dcl-cifar10"])
def test_what_the_encoder_keeps_is_what_training_keeps(name):
    """On real tensors in train mode, a small batch: each view's kept bytes, all storages once."""
    study = shrink(recipe(name))
    cell = next(iter(cells(study).values()))
    encoder = memory.Encoder(study.network, study.data.channels).train()
    side, kept = study.data.size, {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encoder.projector(encoder.backbone(torch.rand(cell.batch, study.data.channels, side, side)))
    for parameter in encoder.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    passes = memory.gradient_passes(cell.method, study.pretrain.symmetric)
    real = passes * sum(storage.nbytes() for storage in kept.values())
    assert memory.estimate(study, cell) > 0.9 * real


def test_it_can_be_asked_for_any_number_of_ranks():
    """Also where a share has fewer images than batch norm has groups."""
    study = shrink(recipe("moco-v2-imagenet"))
    (cell,) = cells(study).values()
    needed = [memory.estimate(study, cell, ranks) for ranks in (1, 2, 4, 8)]
    assert needed == sorted(needed, reverse=True)


def test_it_can_be_asked_by_a_rank_whose_batch_norm_is_a_gpu_s(monkeypatch, tmp_path):
    """torch's SyncBatchNorm refuses every other device in train mode."""
    study = recipe("simo-imagenet")
    cell = next(iter(cells(study).values()))
    alone = memory.estimate(study, cell, 2)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        monkeypatch.setattr("eqco.networks.batch_norm.ranks", lambda: 2)
        monkeypatch.setattr("eqco.networks.batch_norm.synchronised_norm", lambda: nn.SyncBatchNorm)
        assert memory.estimate(study, cell, 2) == pytest.approx(alone, rel=1e-3)
    finally:
        dist.destroy_process_group()


def test_a_batch_that_cannot_fit_is_refused(monkeypatch):
    study = recipe("simo-imagenet")
    cell = next(iter(cells(study).values()))
    monkeypatch.setattr(memory, "estimate", lambda *arguments: 10**18)
    with pytest.raises(InputError, match=r"pretrain.batch: 256: a step needs at least .* bfloat16"):
        memory.check(study, cell, torch.device("cpu"), 1)
