"""The curves of the theory command, against facts about random and real embeddings."""

import math

import pandas as pd
import pytest
import torch
from helpers import TINY, cells, eqco, fails
from torch.nn import functional as F

from eqco.data import packed as data
from eqco.losses import eqco_margin, info_nce, theory
from eqco.losses.sampling import sample, skip_own
from eqco.runtime.seeds import draw_seed
from eqco.study.load import load_study

pytestmark = pytest.mark.usefixtures("fork_server")


def unit(rows: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 128, generator=torch.Generator().manual_seed(seed)))


def generator(negatives: int) -> torch.Generator:
    return torch.Generator().manual_seed(draw_seed(0, "negatives", negatives))


def curves(q: torch.Tensor, k: torch.Tensor, **arguments) -> pd.DataFrame:
    return pd.DataFrame(theory.curves(q, k, generator=generator, **arguments))


def test_eqco_keeps_the_mean_gradient_and_info_nce_does_not():
    """The mean over draws: with s0 = 0.5 and random negatives 1 − p0 is the gradient's scale."""
    q, noise = unit(300, 0), unit(300, 1)
    k = F.normalize(q + 1.7 * (noise - (noise * q).sum(1, keepdim=True) * q))
    table = curves(q, k, alpha=256, temperature=0.2, draws=32)
    at = table.set_index(["margin", "negatives"])["relative"]
    assert at["0", 2] < 0.4
    for negatives in (4, 16, 64):
        assert at["eqco", negatives] == pytest.approx(1, abs=0.05)
        assert at["0", negatives] < at["0", 4 * negatives]


@pytest.mark.parametrize("temperature", [0.05, 0.2])
def test_the_curves_are_those_of_a_backward_pass_through_the_loss(temperature):
    """The same draws of ``sample``, each with its own gradient by autograd, in float64."""
    q, k, negatives, draws = unit(40, 0).double(), unit(40, 1).double(), 16, 3
    table = curves(q, k, alpha=256, temperature=temperature, draws=draws)
    for margin, m in (("0", 0.0), ("eqco", eqco_margin(negatives, 256, temperature))):
        source = generator(negatives)
        gradients, losses = [], []
        for _ in range(draws):
            drawn = sample(len(q), len(q) - 1, negatives, source, shared=False)
            x = q.clone().requires_grad_()
            s = (x @ k.T).gather(1, skip_own(drawn, torch.arange(len(q))))
            loss = info_nce((x * k).sum(1), s, temperature=temperature, margin=m)
            gradients += torch.autograd.grad(loss.sum(), x)
            losses.append(loss.mean().item())
        (row,) = table[(table.margin == margin) & (table.negatives == negatives)].itertuples()
        every = torch.stack(gradients)
        assert row.gradient == pytest.approx(every.mean(0).norm(dim=1).mean().item(), rel=1e-6)
        assert row.norm == pytest.approx(every.norm(dim=2).mean().item(), rel=1e-6)
        largest = math.log1p(negatives * math.exp(m / temperature))
        assert row.bound == pytest.approx(largest - sum(losses) / draws, rel=1e-6)


def test_few_negatives_are_noisy():
    """The mean norm is not the norm of the mean: EqCo does not keep the former."""
    table = curves(unit(300, 0), unit(300, 1), alpha=256, temperature=0.2, draws=8)
    norm = table[table["margin"] == "eqco"].set_index("negatives")["norm"]
    assert norm[2] > 1.1 * norm[256]


def test_with_alpha_k_both_margins_are_one():
    table = curves(unit(300, 0), unit(300, 1), alpha=64, temperature=0.2, draws=4)
    rows = table[table["negatives"] == 64]
    assert rows["gradient"].nunique() == rows["bound"].nunique() == 1


def test_the_command(digits, tmp_path):
    """The first 200 images will do."""
    tensors = data.load(digits, "train", 200)
    images, labels = tensors["images"].numpy(), tensors["labels"].numpy()
    few = data.Packed(images, labels, data.read_manifest(digits)["classes"])
    data.pack({"train": few, "test": few}, "few", tmp_path / "few")
    cell = next(iter(cells(load_study(TINY))))
    eqco("pretrain", TINY, "--cell", cell, "--data", digits, "--out", tmp_path / "cell")
    encoder = tmp_path / "cell" / "encoder.safetensors"
    done = eqco("theory", TINY, "--data", tmp_path / "few", "--out", tmp_path, "--encoder", encoder)
    assert done.returncode == 0, done
    for word in ("initial", "trained", "eqco", "bound"):
        assert word in done.stdout
    for suffix in ("csv", "md", "svg", "png"):
        assert (tmp_path / f"theory.{suffix}").stat().st_size > 0
    message = fails("theory", TINY, "--data", digits, "--out", tmp_path, "--encoder", TINY)
    assert "tiny.yaml: is not an encoder of this project" in message
