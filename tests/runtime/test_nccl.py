"""The collectives and the averaged gradients of one rank on a GPU, by NCCL."""

import pytest
import torch
import torch.distributed as dist
from helpers import cells

from eqco.networks.batch_norm import average_statistics
from eqco.runtime import ranks as distributed
from eqco.training.step import Training, with_mean_gradients

CUDA = torch.device("cuda", 0)


@pytest.fixture
def one_rank(monkeypatch):
    """The variables that torchrun sets for a rank."""
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29571", "TORCHELASTIC_RUN_ID": "test"}
    for name, value in (rank | place).items():
        monkeypatch.setenv(name, value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.usefixtures("one_rank")
def test_one_rank_has_the_gradients_of_a_process_alone(tiny, digits):
    cell = next(iter(cells(tiny).values()))

    def gradients(model, training: Training) -> list[torch.Tensor]:
        draw = torch.Generator(CUDA).manual_seed(0)
        training.loss_of(*model(*training.views(0), draw)).mean().backward()
        return [p.grad for p in training.method.parameters() if p.grad is not None]

    alone = Training(tiny, cell, digits, CUDA)
    expected = gradients(alone.model, alone)
    with distributed.joined(CUDA):
        assert dist.get_backend() == "nccl"
        training = Training(tiny, cell, digits, CUDA)
        found = gradients(with_mean_gradients(training.method), training)
        x = torch.randn(4, 3, device=CUDA, requires_grad=True)
        gathered = distributed._Gather.apply(x)
        (gathered * 2).sum().backward()
        average_statistics(training.method)
        assert distributed.from_rank_0({"step": 3}) == {"step": 3}
    assert torch.equal(gathered, x)
    assert torch.equal(x.grad, torch.full_like(x, 2.0))
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
