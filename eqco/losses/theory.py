"""The two statements of EqCo, drawn from real embeddings: gradient and bound against K."""

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from eqco.data.augmentation import Augmentation
from eqco.data.packed import load, read_manifest
from eqco.losses import eqco_margin
from eqco.losses.sampling import others
from eqco.methods.base import l2_normalize
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
        return [l2_normalize(encoder.train()(view)) for view in views]


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
    scaled = q @ k.T / temperature  # (M, M)
    for negatives in [n for n in KS if n < len(q)]:
        margins = torch.tensor([0.0, eqco_margin(negatives, alpha, temperature)])  # (2,)
        shift = margins[:, None] / temperature
        total = q.new_zeros(2, *q.shape)
        norm = loss = q.new_zeros(2, dtype=torch.float64)
        generator = torch.Generator().manual_seed(draw_seed(0, "negatives", negatives))
        for _ in range(draws):  # the same for both margins
            columns = _draw(len(q), negatives, generator)
            push, gradient = _decoupled(scaled, k, columns)
            x = scaled.diagonal() - shift - push  # (2, M), and L = −log σ(x)
            weight = torch.sigmoid(-x)
            total.addcmul_(weight[:, :, None], gradient, value=1 / (draws * temperature))
            norm = norm + (weight * gradient.norm(dim=1)).mean(dim=1) / (draws * temperature)
            loss = loss - F.logsigmoid(x).mean(dim=1) / draws
        bound = torch.log1p(negatives * shift[:, 0].double().exp()) - loss
        values = {"gradient": total.norm(dim=2).mean(dim=1), "norm": norm, "bound": bound}
        for i, margin in enumerate(("0", "eqco")):
            numbers = {name: float(value[i]) for name, value in values.items()}
            rows.append({"margin": margin, "negatives": negatives, **numbers})
    table = pd.DataFrame(rows).sort_values("margin", kind="stable", ignore_index=True)
    largest = table.groupby("margin", sort=False)["gradient"].transform("last")
    table.insert(3, "relative", table["gradient"] / largest)
    return table


def _draw(anchors: int, negatives: int, generator: torch.Generator) -> Tensor:
    """Others of every anchor (M, K): those that ``negatives.sample`` draws, without its sort."""
    order = torch.rand(anchors, anchors - 1, generator=generator)
    columns = order.topk(negatives, largest=False, sorted=False).indices
    return others(columns, torch.arange(anchors))


def _decoupled(scaled: Tensor, k: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """log S (M,), and τ times the decoupled loss's gradient in the queries (M, D).

    That of every other loss is its weight times this one: see ``eqco.losses``.

    Args:
        scaled: s/τ (M, M).
        k: keys (M, D).
        columns: of the drawn ones, (M, K).
    """
    s = scaled.gather(1, columns)  # (M, K)
    push = s.logsumexp(dim=1)
    softmax = torch.zeros_like(scaled).scatter_(1, columns, (s - push[:, None]).exp_())
    return push, softmax @ k - k
