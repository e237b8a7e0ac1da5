"""SiMo: a query encoder, a momentum key encoder, and negatives from the batch."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqco.losses import eqco_margin, info_nce
from eqco.negatives import sample_others
from eqco.params import Cell


class SiMo(nn.Module):
    """Simplified MoCo (EqCo, arXiv 2010.01929): MoCo without the queue.

    View 1 goes through the query encoder, view 2 through the key encoder, without gradient; a
    query's negatives are K of the N − 1 other keys of its batch. The loss is asymmetric. Both
    encoders stay in train mode, each with its own batch-norm statistics; the moving average covers
    the parameters alone and comes between the two forward passes, as in the authors' code.

    Args:
        encoder: the query encoder; the key encoder starts as its copy.
        cell: K, margin, α and τ.
        ema: the share of itself that the key encoder keeps each step, in [0, 1).
        shared: whether one draw of negatives serves all queries of a step.
    """

    def __init__(self, encoder: nn.Module, cell: Cell, *, ema: float, shared: bool) -> None:
        super().__init__()
        self.query = encoder
        self.key = copy.deepcopy(encoder).requires_grad_(False)
        self.cell = cell
        self.margin = margin(cell)
        self.ema = ema
        self.shared = shared

    def forward(self, view1: Tensor, view2: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of each query (N,) for two views (N, C, H, W) of a batch."""
        q = F.normalize(self.query(view1))  # (N, D)
        with torch.no_grad():
            self._update_key()
            k = F.normalize(self.key(view2))  # (N, D)
        s = q @ k.T  # (N, N)
        others = sample_others(len(q), self.cell.negatives, generator, shared=self.shared)
        return info_nce(
            s.diagonal(),
            s.gather(1, others),  # (N, K)
            temperature=self.cell.temperature,
            margin=self.margin,
        )

    def _update_key(self) -> None:
        keys: list[Tensor] = list(self.key.parameters())
        queries: list[Tensor] = list(self.query.parameters())
        torch._foreach_lerp_(keys, queries, 1 - self.ema)


def margin(cell: Cell) -> float:
    """The cell's margin as a number: EqCo's from its K, α and τ."""
    if cell.margin == "eqco":
        assert cell.alpha is not None, "a cell with EqCo's margin has an α"
        return eqco_margin(cell.negatives, cell.alpha, cell.temperature)
    return cell.margin
