"""What a study says of the encoder: residual branches that start at 0, a predictor's width."""

import pytest
import torch
from helpers import cells
from torchvision.models.resnet import BasicBlock

from eqco.errors import InputError
from eqco.methods import build
from eqco.networks.encoder import Encoder
from eqco.study.recipe import Network


def encoder(**changes) -> Encoder:
    torch.manual_seed(0)
    network = {"backbone": "resnet18", "stem": "small", "projector": [16, 8], **changes}
    return Encoder(Network.model_validate(network), 3)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_block_starts_as_the_identity(groups):
    made = encoder(zero_init_residual=True, batch_norm_groups=groups)
    plain = encoder(batch_norm_groups=groups).state_dict()
    for name, tensor in made.state_dict().items():
        if not name.endswith("bn2.weight"):
            assert torch.equal(tensor, plain[name]), name
    x = torch.rand(4, 64, 8, 8)  # not negative, as after a ReLU
    first = next(m for m in made.modules() if isinstance(m, BasicBlock))
    torch.testing.assert_close(first(x), x)


def test_a_predictor_has_the_width_that_the_study_names(study_with):
    for width, hidden in ((None, 16), (40, 40)):
        changes = {"network.predictor": width, "pretrain.queue": 64, "grid.0.methods": ["nnclr"]}
        study = study_with(changes)
        cell = next(iter(cells(study).values()))
        method = build(cell, Encoder(study.network, 1), study.pretrain)
        assert [layer.weight.shape for layer in (method.predictor[0], method.predictor[-1])] == [
            (hidden, 8),
            (8, hidden),
        ]


def test_conv5_has_no_residual_branches(study_with):
    message = "network.zero_init_residual: true: conv5 has no residual branches"
    with pytest.raises(InputError, match=message):
        study_with({"network.zero_init_residual": True})
