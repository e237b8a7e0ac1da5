"""SogCLR's loss against its definition, step by step, its limits, and its mean over draws."""

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from eqco.losses import SharedNegatives, SogCLR, dcl

TAU, N, M = 0.2, 4, 10


def embeddings(step: int) -> Tensor:
    """Two views of the images of a step, (2, N, D)."""
    z = torch.randn(2, N, 6, generator=torch.Generator().manual_seed(step)).double()
    return F.normalize(z, dim=2).requires_grad_()


def simclr_similarities(z: Tensor) -> tuple[Tensor, Tensor]:
    """s0 (2N,) and both views of the other images (2N, 2N − 2)."""
    flat = z.flatten(0, 1)
    s = flat @ flat.T
    same = torch.eye(N, dtype=torch.bool).repeat(2, 2)
    return torch.cat([s.diagonal(N), s.diagonal(-N)]), s[~same].view(2 * N, 2 * N - 2)


def remembering(gamma: float, images: int = M) -> SogCLR:
    return SogCLR(images, temperature=TAU, gamma=gamma).double()


def test_it_is_the_authors_loss_step_by_step():
    """−s0 + Σ_j sg[exp(s_j/τ) / (K u)] s_j for each anchor, u per image and step, in plain loops.

    Theirs sums the two views of an image and is τ times ours.
    """
    loss, gamma, u = remembering(0.7), 0.7, {}
    for step, batch in enumerate([[3, 1, 0, 7], [1, 3, 5, 9], [7, 0, 1, 3]]):
        z, total = embeddings(step), torch.zeros(()).double()
        new = {image: [] for image in batch}
        for view in (0, 1):
            for i, image in enumerate(batch):
                anchor = z[view, i]
                others = [z[v, j] for v in (0, 1) for j in range(N) if j != i]
                s = torch.stack([anchor @ other for other in others])
                mean = torch.exp(s.detach() / TAU).mean()
                mine = (1 - gamma) * u[image] + gamma * mean if image in u else mean
                new[image].append(mine)
                weights = torch.exp(s.detach() / TAU) / mine
                total = total - anchor @ z[1 - view, i] + (weights * s).mean()
        u |= {image: sum(values) / 2 for image, values in new.items()}
        (theirs,) = torch.autograd.grad(total / N, z)
        value = loss(*simclr_similarities(z), torch.tensor(batch))
        (ours,) = torch.autograd.grad(value.mean(), z)
        torch.testing.assert_close(2 * TAU * ours, theirs)
        for image in range(M):
            known = u[image].log().item() if image in u else -math.inf
            assert loss.log_u[image].item() == pytest.approx(known)


@pytest.mark.parametrize("gamma", [1.0, 0.3])
def test_it_is_dcl_where_nothing_is_remembered(gamma):
    loss = remembering(gamma)
    for step in range(3):
        z, images = embeddings(step), torch.arange(N)
        s0, s = simclr_similarities(z)
        (ours,) = torch.autograd.grad(loss(s0, s, images).sum(), z, retain_graph=True)
        (theirs,) = torch.autograd.grad(dcl(s0, s, temperature=TAU).sum(), z)
        assert torch.allclose(ours, theirs) == (step == 0 or gamma == 1)


def test_its_value_is_dcl_with_the_remembered_mean_of_the_negatives():
    loss = remembering(0.5)
    s0, s = torch.tensor([0.5, 0.1]).double(), torch.tensor([[0.3, 0.2], [0.0, -0.1]]).double()
    loss(s0, s, torch.tensor([4, 2]))
    mean = torch.exp(s / TAU).mean(1)
    found = loss(s0, -s, torch.tensor([4, 2]))
    u = 0.5 * mean + 0.5 * torch.exp(-s / TAU).mean(1)
    torch.testing.assert_close(found, -s0 / TAU + torch.log(2 * u))
    torch.testing.assert_close(loss.log_u[[4, 2]].exp(), u)


def test_with_the_mean_of_all_candidates_it_is_unbiased_in_k_where_dcl_is_not():
    s = 2 * torch.rand(3, 6, generator=torch.Generator().manual_seed(0)).double() - 1
    s0 = torch.zeros(3).double()
    loss = remembering(1e-12)

    def push(k: int, of) -> Tensor:
        """The mean gradient in s over every choice of K of 6."""
        x = s.clone().requires_grad_()
        choices = [list(choice) for choice in combinations(range(6), k)]
        values = [of(x[:, choice]).sum() for choice in choices]
        return torch.autograd.grad(torch.stack(values).mean(), x)[0]

    def ours(x: Tensor) -> Tensor:
        loss.log_u[:3] = (s / TAU).logsumexp(1) - math.log(6)
        return loss(s0, x, torch.arange(3))

    whole = push(6, lambda x: dcl(s0, x, temperature=TAU))
    for k in (1, 2, 5):
        torch.testing.assert_close(push(k, ours), whole)
        assert not torch.allclose(push(k, lambda x: dcl(s0, x, temperature=TAU)), whole, rtol=0.1)


def test_a_small_temperature_does_not_overflow_in_float32():
    loss = SogCLR(2, temperature=0.005)
    for _ in range(2):
        s = torch.tensor([[1.0, 0.9], [-1.0, -1.0]]).requires_grad_()
        value = loss(torch.tensor([0.5, -0.5]), s, torch.arange(2)).sum()
        assert value.isfinite()
        assert torch.autograd.grad(value, s)[0].isfinite().all()
    assert loss.log_u.isfinite().all()


def test_shared_negatives_and_low_precision():
    generator = torch.Generator().manual_seed(0)
    q, keys = (F.normalize(torch.randn(n, 6, generator=generator)) for n in (4, 20))
    s0, images = torch.rand(4, generator=generator), torch.arange(4)
    one, other, low = (SogCLR(4, temperature=TAU) for _ in range(3))
    for _ in range(2):
        found = one(s0, SharedNegatives(q, keys), images)
        torch.testing.assert_close(found, other(s0, q @ keys.T, images))
    half = low(s0.bfloat16(), (q @ keys.T).bfloat16(), images)
    assert half.dtype == low.log_u.dtype == torch.float32


def test_wrong_arguments_are_errors():
    for gamma in (0.0, 1.1):
        with pytest.raises(ValueError, match="0 < γ ≤ 1; got"):
            SogCLR(3, temperature=TAU, gamma=gamma)
    with pytest.raises(ValueError, match="A is a multiple of N; got A = 3, N = 2"):
        SogCLR(3, temperature=TAU)(torch.zeros(3), torch.zeros(3, 2), torch.arange(2))
