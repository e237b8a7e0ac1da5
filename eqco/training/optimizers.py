"""The optimisers: torch's SGD and AdamW, SGD on the normalised gradient, and LARS."""

from typing import Any

import torch
from torch import Tensor, nn

from eqco.study.fields import Optimizer
from eqco.study.recipe import Pretrain

SLOTS: dict[Optimizer, int] = {  # tensors of a parameter's size that each keeps per parameter
    "sgd": 1,
    "normalised-sgd": 1,
    "lars": 1,
    "adamw": 2,
}


class NormalisedSGD(torch.optim.SGD):
    """SGD with momentum on the gradient divided by its norm, over all parameters together.

        g ← g / ‖g‖,   v ← μ v + g,   θ ← (1 − lr · decay) θ − lr v

    A factor of the loss, even one that changes from step to step, changes nothing: neither the
    gradient's direction nor the weight decay, which is apart from it (decoupled, arXiv 1711.05101).
    Two losses with the same direction of the gradient then give the same training.

    Args:
        groups: of parameters, each a mapping with ``params`` and ``decay``, the weight decay; it
            is multiplied by the learning rate in each step.
        lr: learning rate.
        momentum: μ, in [0, 1).
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, momentum: float) -> None:
        super().__init__(groups, lr=lr, momentum=momentum)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do one step; the gradients are divided in place. A gradient of 0 stays 0."""
        _, gradients = _trained(self.param_groups)
        norm = nn.utils.get_total_norm(gradients)  # stays on the device
        torch._foreach_div_(gradients, norm.clamp_min(torch.finfo(norm.dtype).tiny))
        for group in self.param_groups:
            trained, _ = _trained([group])
            torch._foreach_mul_(trained, 1 - group["lr"] * group["decay"])
        super().step()


class LARS(torch.optim.SGD):
    """SGD with momentum and a rate per layer: LARS (arXiv 1708.03888, Eq. 6), as SimCLR's.

        g ← λ (g + decay · θ),  λ = trust · ‖θ‖ / (‖g‖ + decay · ‖θ‖),   v ← μ v + g,   θ ← θ − lr v

    Norms are of one parameter's tensor. Where one is 0, λ is 1. Batch norm and biases have λ = 1
    and no decay (SimCLR, arXiv 2002.05709). SimCLR's released code has ‖g + decay · θ‖ below the
    line and the learning rate within v.

    Args:
        adapted: the weights of linear layers and convolutions.
        others: the parameters of batch norm, and biases.
        lr: learning rate.
        momentum: μ, in [0, 1).
        decay: weight decay.
        trust: the trust coefficient.
    """

    def __init__(
        self,
        adapted: list[nn.Parameter],
        others: list[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        decay: float,
        trust: float = 0.001,
    ) -> None:
        super().__init__([{"params": adapted}, {"params": others}], lr=lr, momentum=momentum)
        self.decay, self.trust = decay, trust

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do one step; the gradients of the adapted parameters are changed in place."""
        trained, gradients = _trained(self.param_groups[:1])
        size = torch.stack(torch._foreach_norm(trained))  # ‖θ‖ of each (P,), on the device
        slope = torch.stack(torch._foreach_norm(gradients))  # ‖g‖ of each (P,)
        ratio = self.trust * size / (slope + self.decay * size)
        ratio = ratio.where((size > 0) & (slope > 0), 1)
        torch._foreach_add_(gradients, trained, alpha=self.decay)
        torch._foreach_mul_(gradients, ratio.unbind())
        super().step()


def build(recipe: Pretrain, method: nn.Module, *, lr: float) -> torch.optim.Optimizer:
    """The optimiser of a recipe, over the method's parameters that are trained.

    AdamW is torch's: its β1 is ``momentum``, its β2 0.999.

    Args:
        recipe: the optimiser's name, momentum and weight decay.
        method: the networks.
        lr: learning rate.
    """
    trained = [p for p in method.parameters() if p.requires_grad]
    weights = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]  # batch norm and biases
    decay, momentum = recipe.weight_decay, recipe.momentum

    def groups(key: str) -> list[dict[str, Any]]:
        if recipe.decay_norm_and_bias:
            return [{"params": trained, key: decay}]
        return [{"params": weights, key: decay}, {"params": others, key: 0.0}]

    match recipe.optimizer:
        case "normalised-sgd":
            return NormalisedSGD(groups("decay"), lr=lr, momentum=momentum)
        case "lars":
            return LARS(weights, others, lr=lr, momentum=momentum, decay=decay)
        case "adamw":
            return torch.optim.AdamW(groups("weight_decay"), lr=lr, betas=(momentum, 0.999))
        case _:
            return torch.optim.SGD(groups("weight_decay"), lr=lr, momentum=momentum)


def _trained(groups: list[dict[str, Any]]) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters of some groups that have a gradient, and their gradients."""
    parameters = [p for group in groups for p in group["params"] if p.grad is not None]
    return parameters, [p.grad for p in parameters]
