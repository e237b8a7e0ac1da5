"""Logistic regression on fixed features, by L-BFGS."""

import torch
from torch import Tensor
from torch.nn import functional as F

from eqco.evaluation.features import Features
from eqco.study.protocols import LinearLBFGS


def linear_lbfgs(features: Features, params: LinearLBFGS) -> dict[str, float]:
    """Multinomial logistic regression on standardised features, by full-batch L-BFGS.

    Minimises mean cross-entropy + l2 · ½‖W‖², in float64; the bias is not penalised.

    Returns:
        Its accuracies, as ``Features.accuracies``.
    """
    mean, std = features.train.mean(0), features.train.std(0).clamp(min=1e-6)
    train, rated = (((x - mean) / std).double() for x in (features.train, features.rated))
    weight = train.new_zeros(features.classes, train.shape[1], requires_grad=True)  # (Y, F)
    bias = train.new_zeros(features.classes, requires_grad=True)  # (Y,)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=params.iterations,
        tolerance_grad=1e-6,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(train, weight, bias), features.train_labels)
        loss = loss + 0.5 * params.l2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    return features.accuracies("linear-lbfgs", F.linear(rated, weight, bias))
