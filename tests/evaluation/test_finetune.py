"""Fine-tuning against a plain loop of torch, and that it resumes to the same bytes."""

import pytest
import torch
from helpers import TINY, cells
from torch import nn

from eqco.commands.steps import finetune_eval
from eqco.data.packed import dataset_hash, load, read_manifest
from eqco.data.views import Views
from eqco.errors import InputError, Interrupted
from eqco.evaluation.finetune import finetune
from eqco.networks.encoder import Encoder
from eqco.runtime.seeds import draw_seed
from eqco.runtime.signals import Stop
from eqco.store.cells import SavedEncoder
from eqco.store.checkpoint import Checkpoints
from eqco.study.protocols import FineTune
from eqco.study.recipe import Augment

CPU = torch.device("cpu")
PARAMS = FineTune(epochs=3, batch=128, augment=Augment(crop=[0.7, 1.0]))


@pytest.fixture
def saved(study_with, digits) -> SavedEncoder:
    """An encoder whose backbone was trained with batch norm in two groups."""
    study = study_with({"network.batch_norm_groups": 2, "grid.0.seeds": [3]})
    torch.manual_seed(0)
    encoder = Encoder(study.network, channels=1)
    encoder(torch.rand(64, 1, 8, 8))
    config = study.resolve(next(iter(cells(study).values())))
    return SavedEncoder(config, dataset_hash(read_manifest(digits)), encoder.state_dict())


def test_it_is_a_plain_loop_of_torch(saved, tiny, digits):
    before = {name: tensor.clone() for name, tensor in saved.tensors.items()}
    found, features = finetune(saved, digits, PARAMS, device=CPU)
    for name, tensor in saved.tensors.items():  # the encoder of the cell stays
        assert torch.equal(tensor, before[name])

    encoder = Encoder(tiny.network, channels=1)  # without groups
    encoder.load_state_dict(saved.tensors)
    layer = nn.Linear(256, 10)
    start = torch.Generator().manual_seed(draw_seed(3, "finetune", 1))
    layer.weight.data = 0.01 * torch.randn(10, 256, generator=start)
    layer.bias.data.zero_()
    model = nn.Sequential(encoder.backbone, layer).to(memory_format=torch.channels_last)
    seed = draw_seed(3, "finetune", 0)
    views = Views(
        digits, tiny.data, PARAMS.augment, batch=128, views=1, epochs=3, seed=seed, device=CPU
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3 * (1297 // 128))
    for step in range(3 * (1297 // 128)):
        loss = nn.functional.cross_entropy(model(views(step)[0]), views.labels[views.visit(step)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cosine.step()
    manifest, test = read_manifest(digits), load(digits, "test")
    images = (test["images"] / 255 - manifest["mean"][0]) / manifest["std"][0]
    with torch.no_grad():
        scores = model.eval()(images)
    expected = 100 * float((scores.argmax(1) == test["labels"]).double().mean())
    assert found == {"finetune": pytest.approx(expected, abs=0.41)}  # two images of 500
    assert expected > 50  # a tenth by chance
    assert features.test.shape == (500, 256)


def test_stopped_anywhere_it_ends_in_the_same_bytes(saved, digits, tmp_path):
    expected, features = finetune(saved, digits, PARAMS, device=CPU)
    checkpoints = Checkpoints(tmp_path / "state", {})
    stop = Stop()
    stop.asked_by = 15
    for _ in range(3):  # a step each
        with pytest.raises(Interrupted):
            finetune(saved, digits, PARAMS, device=CPU, checkpoints=checkpoints, stop=stop)
    found, resumed = finetune(saved, digits, PARAMS, device=CPU, checkpoints=checkpoints)
    assert found == expected
    assert torch.equal(resumed.test, features.test)
    assert not list((tmp_path / "state").iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 2000}, "evaluate.finetune.batch: 2000: .* has 1297 training images"),
        ({"lr": 1e30}, r"evaluate.finetune.lr: 1e\+30: the loss is not finite in epoch 1 of 3"),
    ],
)
def test_what_cannot_be_trained(changes, message, saved, digits):
    params = PARAMS.model_copy(update=changes)
    with pytest.raises(InputError, match=message):
        finetune(saved, digits, params, device=CPU)


def test_a_study_without_it(digits, tmp_path):
    with pytest.raises(InputError, match=r"evaluate\.finetune: is not in the study"):
        finetune_eval(TINY, tmp_path / "none", digits, tmp_path / "out", device="cpu", threads=1)
