"""The mean gradient of the parameters, by loss, K and draw of negatives, beside that of all.

A training follows the mean over batches, and suffers the noise around it. So three numbers say what
few negatives do: whether the mean points elsewhere, how large it is, and how far it stands out.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eqco.data.views import Views
from eqco.methods import build
from eqco.networks.encoder import Encoder
from eqco.runtime.seeds import draw_seed
from eqco.study.cell import Cell
from eqco.study.study import Study
from eqco.training.objective import objective

LOSSES: dict[str, dict[str, Any]] = {  # changes of a cell
    "InfoNCE": {"loss": "info-nce", "margin": 0.0},
    "EqCo": {"loss": "info-nce", "margin": "eqco"},
    "DCL": {"loss": "info-nce", "margin": float("inf")},
    "DCL × EqCo's W of the next anchor": {"loss": "dcl-rolled", "margin": "eqco"},
    "EqCo's W by the negatives": {"loss": "dcl-by-negatives", "margin": "eqco"},
    "EqCo's W by the positive": {"loss": "dcl-by-positive", "margin": "eqco"},
}
SAMPLINGS = ("shared", "independent")


class Mean:
    """The mean gradient of one loss over batches: its square and products, without bias.

    A product of two means over the same n batches has the noise of each batch with itself. Here are
    the products of different batches alone.
    """

    def __init__(self) -> None:
        self.sum: Tensor | float = 0.0  # of the gradients (P,)
        self.squares = 0.0  # of ‖g‖², batch by batch
        self.with_reference = 0.0  # of g · g_ref, batch by batch
        self.batches = 0

    def add(self, gradient: Tensor, reference: Tensor) -> None:
        """Add the gradient of a batch (P,), and of the same batch that of the reference."""
        self.sum = self.sum + gradient
        self.squares += float(gradient @ gradient)
        self.with_reference += float(gradient @ reference)
        self.batches += 1

    def product(self, other: "Mean", same: float) -> float:
        """The product of two means; ``same`` is the sum of the products within a batch."""
        assert isinstance(self.sum, Tensor)
        assert isinstance(other.sum, Tensor)
        pairs = self.batches * (self.batches - 1)
        return (float(self.sum @ other.sum) - same) / pairs

    def compared(self, reference: "Mean") -> dict[str, float]:
        """Cosine, norm and signal-to-noise, the last two as ratios; NaN where noise hides them."""
        square, other = self._square(), reference._square()
        cosine = self.product(reference, self.with_reference) / (square * other) ** 0.5
        return {
            "cosine": cosine,
            "norm": (square / other) ** 0.5,
            "signal_to_noise": self._signal_to_noise() / reference._signal_to_noise(),
        }

    def _square(self) -> float:
        """‖mean‖²; NaN if its estimate is not positive."""
        square = self.product(self, self.squares)
        return square if square > 0 else float("nan")

    def _signal_to_noise(self) -> float:
        square = self._square()
        return square / (self.squares / self.batches - square)


def compare(
    study: Study,
    cell: Cell,
    encoder: Encoder,
    views: Views,
    ks: list[int],
    *,
    tell: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Compare the mean gradients of all losses with that of InfoNCE at the largest K.

    Args:
        study: the recipe and α.
        cell: the method and τ.
        encoder: at whose weights; for a method with a key encoder both have them.
        views: two views a step; the batches are its steps, at least 2.
        ks: the K to compare, the largest of which is the reference.
        tell: called with a line of progress after each batch.

    Returns:
        A row for each draw of negatives, loss and K, with ``sampling``, ``loss``, ``negatives``,
        ``cosine``, ``norm`` and ``signal_to_noise``. The reference draws as the row does.
    """
    device = views.device
    means: dict[tuple[str, str, int], Mean] = {}
    largest = max(ks)
    for step in range(views.steps):
        view1, view2 = views(step)
        for sampling in SAMPLINGS:
            reference: Tensor | None = None
            for k in sorted(ks, reverse=True):
                recipe = study.pretrain.model_copy(update={"sampling": sampling})
                drawing = cell.model_copy(update={"negatives": k})
                method = build(drawing, encoder, recipe).to(device).train()
                draw = torch.Generator(device).manual_seed(draw_seed(cell.seed, "negatives", step))
                positive, negatives = method(view1, view2, draw)  # (A,), (A, K)
                parameters = [p for p in method.parameters() if p.requires_grad]
                for name, changes in LOSSES.items():
                    changed = drawing.model_copy(update={**changes, "alpha": study.alpha})
                    loss = objective(changed, study.loss)(positive, negatives).mean()
                    parts = torch.autograd.grad(loss, parameters, retain_graph=True)
                    gradient = torch.cat([part.flatten() for part in parts])  # (P,)
                    reference = gradient if reference is None else reference
                    means.setdefault((sampling, name, k), Mean()).add(gradient, reference)
        tell(f"batch {step + 1} of {views.steps}")
    first = next(iter(LOSSES))
    return [
        {
            **{"sampling": sampling, "loss": name, "negatives": k},
            **mean.compared(means[sampling, first, largest]),
        }
        for (sampling, name, k), mean in means.items()
    ]
