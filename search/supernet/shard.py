"""One worker's share of a training that several do together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True, slots=True)
class Shard:
    """Which part of every batch is a worker's, and how the workers add up what they found.

    Attributes:
        rank: This worker's number, from 0.
        workers: How many there are.
    """

    rank: int = 0
    workers: int = 1

    def part(self, tensor: Tensor) -> Tensor:
        """Every n-th row of a batch, beginning with the rank."""
        return tensor[self.rank :: self.workers]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors by their sums over all workers, through the process group of `torch.distributed`."""
        if self.workers == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))
