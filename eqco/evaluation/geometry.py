"""The geometry of features: how near two views are, how evenly and how widely images spread.

They need no labels. Features are the backbone's, as the protocols rate them.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from eqco.data.views import Views
from eqco.evaluation.features import Features, frozen_backbone
from eqco.runtime.seeds import draw_seed
from eqco.store.cells import SavedEncoder
from eqco.study.datasets import Data
from eqco.study.recipe import Augment

SPREAD = 2000  # test images for uniformity and RankMe
PAIRS = 512  # training images for alignment


def alignment(first: Tensor, second: Tensor) -> float:
    """The mean squared distance of two views' unit features (M, F): 0 to 4, low is near.

    Wang and Isola (arXiv 2005.10242), Eq. 5 with α = 2.
    """
    return float((F.normalize(first) - F.normalize(second)).square().sum(dim=1).mean())


def uniformity(features: Tensor) -> float:
    """log of the mean of exp(−2 d²) over all pairs of unit features (M, F): −8 to 0, low is even.

    Wang and Isola (arXiv 2005.10242), Eq. 6 with t = 2; d is the distance of a pair.
    """
    return float(torch.pdist(F.normalize(features)).square().mul(-2).exp().mean().log())


def rank_me(features: Tensor) -> float:
    """RankMe of features (M, F): exp of the entropy of their singular values, 1 to min(M, F).

    With p_k = σ_k / Σσ + ε (Garrido et al., arXiv 2210.02885, Eqs. 1 and 2).
    """
    values = torch.linalg.svdvals(features.double())
    p = values / values.sum() + 1e-7
    return float((-(p * p.log()).sum()).exp())


@torch.no_grad()
def geometry(
    features: Features, saved: SavedEncoder, spec: Data, data: Path, device: torch.device
) -> dict[str, float]:
    """The three numbers of an encoder, by name.

    Args:
        features: of the splits; the first SPREAD test images are used.
        saved: the encoder.
        spec: the study's dataset. The two views are by the encoder's own augmentation.
        data: folder of the packed dataset; PAIRS of its training images are used, or fewer.
        device: where to compute.
    """
    views = Views(
        data,
        spec,
        Augment.model_validate(saved.config["augment"]),
        batch=min(PAIRS, len(features.train)),
        views=2,
        epochs=1,
        seed=draw_seed(0, "geometry", 0),
        device=device,
    )
    backbone = frozen_backbone(saved, views.channels).to(device)
    first, second = (backbone(view) for view in views(0))  # (PAIRS, F) each
    spread = features.test[:SPREAD]
    return {
        "alignment": alignment(first, second),
        "uniformity": uniformity(spread),
        "rank_me": rank_me(spread),
    }
