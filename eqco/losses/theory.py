"""The two statements of EqCo, drawn from real embeddings: gradient and bound against K."""

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from eqco.data.augmentation import Augmentation
from eqco.data.packed import load, read_manifest
from eqco.losses import eqco_margin, info_nce
from eqco.losses.negatives import others, sample
from eqco.methods.base import unit
from eqco.networks.encoder import Encoder
from eqco.runtime.seeds import draw_seed
from eqco.study.study import Study

KS = (1, 2, 4, 16, 64, 256, 512)


def embeddings(encoder: Encoder, study: Study, data: Path, images: int = 1024) -> list[Tensor]:
    """Unit embeddings (M, D) of two views of the first M training images.

    The encoder is in train mode, as in a step of its training: batch norm sees the M views.
    """
    manifest = read_manifest(data)
    batch = load(data, "train", images)["images"]
    mean, std = (torch.tensor(manifest[name]) for name in ("mean", "std"))
    augment = Augmentation(study.augment, mean, std)
    views = augment(batch.repeat(2, 1, 1, 1), draw_seed(0, "views", 0)).chunk(2)
    with torch.no_grad():
        return [unit(encoder.train()(view)) for view in views]


def initial(study: Study, channels: int) -> Encoder:
    """The study's encoder with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(draw_seed(0, "weights", 0))
        return Encoder(study.network, channels)


def curves(
    q: Tensor, k: Tensor, *, alpha: float, temperature: float, draws: int = 32
) -> pd.DataFrame:
    """Gradient and bound against K, for margins 0 and EqCo's.

    Args:
        q: unit queries (M, D).
        k: unit keys (M, D), the positive of a query in its own row.
        alpha: α.
        temperature: τ.
        draws: of K negatives for every query, out of the M − 1 other keys.

    Returns:
        A row a margin and K ≤ M − 1: ``gradient``, the mean over queries of ‖E ∂L/∂q‖, the
        expectation over draws; ``relative``, it over that of the largest K; ``norm``, the mean of
        ‖∂L/∂q‖, which few negatives make larger: they are noisy; ``bound``, log(1 + K exp(m/τ)) − L
        in nats, with the caveat of ``diagnostics.bound``.
    """
    rows = []
    own = torch.arange(len(q))
    for negatives in [n for n in KS if n < len(q)]:
        generator = torch.Generator().manual_seed(draw_seed(0, "negatives", negatives))
        drawn = [  # (M, K) each, the same for both margins
            others(sample(len(q), len(q) - 1, negatives, generator, shared=False), own)
            for _ in range(draws)
        ]
        for margin in ("0", "eqco"):
            m = eqco_margin(negatives, alpha, temperature) if margin == "eqco" else 0.0
            total, norm, loss = torch.zeros_like(q), 0.0, 0.0
            for columns in drawn:
                x = q.clone().requires_grad_()
                s = x @ k.T  # (M, M)
                value = info_nce(
                    s.diagonal(), s.gather(1, columns), temperature=temperature, margin=m
                )
                (gradient,) = torch.autograd.grad(value.sum(), x)
                total += gradient / draws
                norm += float(gradient.norm(dim=1).mean()) / draws
                loss += float(value.detach().mean()) / draws
            effective = negatives * torch.tensor(m / temperature).double().exp()
            rows.append(
                {
                    "margin": margin,
                    "negatives": negatives,
                    "gradient": float(total.norm(dim=1).mean()),
                    "norm": norm,
                    "bound": float(torch.log1p(effective)) - loss,
                }
            )
    table = pd.DataFrame(rows).sort_values("margin", kind="stable", ignore_index=True)
    largest = table.groupby("margin", sort=False)["gradient"].transform("last")
    table.insert(3, "relative", table["gradient"] / largest)
    return table
