"""Sparse weights: the largest ones stay, chosen anew in every forward pass."""

from __future__ import annotations

import torch
from torch import Tensor


def sparsify(weight: Tensor, density: float, pattern: int = 0) -> Tensor:
    """Weights (out, in, …) with the smaller ones set to zero; the gradient passes straight through to all of them.

    Pruned weights keep learning and may come back, as in SR-STE (Zhou et al., ICLR 2021, arXiv 2102.04010). Two
    deviations: its decay of pruned weights is left out, and a density without a pattern prunes a layer's weights all
    together.

    Args:
        weight: Of a convolution or a linear layer.
        density: Share of weights to keep; 1 leaves ``weight`` as it is.
        pattern: See `mask`.
    """
    if density >= 1:
        return weight
    pruned = weight.detach() * mask(weight.detach(), density, pattern)
    return weight + (pruned - weight.detach())


def mask(weight: Tensor, density: float, pattern: int = 0) -> Tensor:
    """Which weights (out, in, …) are kept: the largest by magnitude, one at least. Booleans of the same shape.

    Args:
        weight: All weights of a layer.
        density: Share of weights to keep, rounded to a number of them.
        pattern: Where it is 0, weights of the whole layer compete. Else those of ``pattern`` consecutive input channels
            do, for each output channel and kernel position (N:M sparsity); a last group of fewer channels keeps its
            share of N, rounded up.
    """
    size = weight.abs()
    if not pattern:
        return _largest(size.flatten(), max(1, round(density * size.numel()))).reshape(size.shape)
    kept = max(1, round(density * pattern))
    channels = size.movedim(1, -1)  # (out, …, in)
    count, left = divmod(channels.shape[-1], pattern)
    groups, rest = torch.split(channels, [count * pattern, left], -1)
    groups = groups.reshape(*groups.shape[:-1], count, pattern)
    parts = [_largest(groups, kept).flatten(-2), _largest(rest, -(-left * kept // pattern))]
    return torch.cat(parts, -1).movedim(-1, 1)


def _largest(values: Tensor, count: int) -> Tensor:
    """True at the ``count`` largest along the last dimension."""
    chosen = values.topk(count, dim=-1).indices
    return torch.zeros_like(values, dtype=torch.bool).scatter_(-1, chosen, True)
