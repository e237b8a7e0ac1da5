"""The queue of earlier embeddings that MoCo and NNCLR draw from."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Queue(nn.Module):
    """The last L unit embeddings, first in, first out; random ones until it is full.

    Args:
        length: L.
        dim: D.
    """

    items: Tensor  # (L, D)
    oldest: Tensor  # row of the oldest embedding, the next to be replaced

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("items", F.normalize(torch.randn(length, dim)))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long))

    def push(self, new: Tensor) -> None:
        """Replace the oldest embeddings by ``new`` (N, D); if N > L, by the last L of them."""
        length = len(self.items)
        new = new[-length:]
        rows = (self.oldest + torch.arange(len(new), device=new.device)) % length
        self.items[rows] = new
        self.oldest.add_(len(new)).remainder_(length)
