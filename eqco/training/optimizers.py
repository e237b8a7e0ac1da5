"""The optimisers: torch's SGD, and an SGD that a factor of the loss does not change."""

from collections.abc import Iterable

import torch
from torch import nn

from eqco.study.cell import Cell
from eqco.study.recipe import Pretrain


class NormalisedSGD(torch.optim.SGD):
    """SGD with momentum on the gradient divided by its norm, over all parameters together.

        g ← g / ‖g‖,   v ← μ v + g,   θ ← (1 − lr · decay) θ − lr v

    A factor of the loss, even one that changes from step to step, changes nothing: neither the
    gradient's direction nor the weight decay, which is apart from it (decoupled, arXiv 1711.05101).
    Two losses with the same direction of the gradient then give the same training.

    Args:
        params: the parameters.
        lr: learning rate.
        momentum: μ, in [0, 1).
        decay: the weight decay, times the learning rate in each step.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], *, lr: float, momentum: float, decay: float
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum)
        self.decay = decay

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do one step; the gradients are divided in place. A gradient of 0 stays 0."""
        (group,) = self.param_groups
        trained = [p for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in trained]
        norm = nn.utils.get_total_norm(gradients)  # stays on the device
        torch._foreach_div_(gradients, norm.clamp_min(torch.finfo(norm.dtype).tiny))
        torch._foreach_mul_(trained, 1 - group["lr"] * self.decay)
        super().step()


def build(cell: Cell, recipe: Pretrain, method: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a cell, over the method's parameters that are trained; one group."""
    trained = [p for p in method.parameters() if p.requires_grad]
    decay = recipe.weight_decay if cell.weight_decay is None else cell.weight_decay
    if (cell.optimizer or recipe.optimizer) == "normalised-sgd":
        return NormalisedSGD(trained, lr=cell.lr, momentum=recipe.momentum, decay=decay)
    return torch.optim.SGD(trained, lr=cell.lr, momentum=recipe.momentum, weight_decay=decay)
