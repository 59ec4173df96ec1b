"""Weight sharing: a layer's weights as a few values and an index each, by k-means."""

from __future__ import annotations

import math
from bisect import bisect, insort

import torch
from torch import Tensor, nn

from hwnas.spaces.errors import InvalidOptionError

ITERATIONS = 300
"""The most times that centroids move."""


def share_weights(weight: Tensor, bits: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The values that a layer's weights share, and which of them each takes, by k-means with k-means++ seeding.

    As in Deep Compression (Han et al., ICLR 2016, arXiv 1510.00149, section 3) and HAQ (Wang et al., CVPR 2019),
    which seeds with k-means++, too. In one dimension clusters are intervals, so that Lloyd's iteration
    on sorted weights takes a binary search per centroid, and is exact. Where there are no more distinct weights than
    2^bits, these are the values. One deviation: iterations end when no weight changes its cluster, or after 300. Pruned
    weights are no exception; to keep them at zero, share the others alone.

    Args:
        weight: Of any shape, finite.
        bits: Of an index, 1 to 8.
        generator: On the CPU; draws the seeds. Equal weights and states give equal clusters.

    Returns:
        The codebook (2^bits,) in increasing order, of the weight's type, and indices of the weight's shape, uint8.
        Entries that no index names repeat or lie between others.

    Raises:
        InvalidOptionError: Other bits, or weights that are not finite, or none.
    """
    if not 1 <= bits <= 8:
        raise InvalidOptionError(f"weights shared by an index of {bits} bits; indices have 1 to 8")
    if not weight.numel() or not weight.isfinite().all():
        raise InvalidOptionError(
            f"weights of the shape {tuple(weight.shape)} to share that are not all finite, or none; check the layer"
        )
    size = 1 << bits
    values, places, counts = torch.unique(weight.detach().cpu().double(), return_inverse=True, return_counts=True)
    if len(values) <= size:
        codebook = torch.cat([values, values[-1:].expand(size - len(values))])
        indices = places
    else:
        codebook, owners = _lloyd(values, counts.double(), _seeds(values, counts.double(), size, generator))
        indices = owners[places]
    return codebook.to(weight), indices.to(weight.device, torch.uint8)


def shared_weight(weight: Tensor, indices: Tensor, n: int) -> Tensor:
    """Each weight replaced by the mean of its cluster, for training: centroids are averaged anew in every step.

    Every weight of a cluster gets the mean of the cluster's gradients, so all move alike, and the shared value moves as
    that mean says.

    Args:
        weight: Of any shape.
        indices: The cluster of each weight, of the same shape, below ``n``.
        n: The number of clusters; those without weights are no matter.

    Returns:
        At most ``n`` distinct values, of the weight's shape and type.

    Raises:
        InvalidOptionError: Indices of another shape, or one that is not below ``n``.
    """
    if indices.shape != weight.shape:
        raise InvalidOptionError(
            f"indices of the shape {tuple(indices.shape)} for weights of {tuple(weight.shape)}; each weight has one"
        )
    clusters = indices.flatten().long()
    counts = torch.bincount(clusters, minlength=n)
    if len(counts) > n:
        raise InvalidOptionError(f"an index of {len(counts) - 1} for {n} clusters; indices are below their number")
    # Millions of float32 weights, or gradients, do not add up exactly enough.
    sums = weight.new_zeros(n, dtype=torch.float64).index_add(0, clusters, weight.flatten().double())
    means = sums / counts.clamp_min(1)
    return means.index_select(0, clusters).to(weight.dtype).reshape(weight.shape)


class WeightSharer(nn.Module):
    """Lets the weights of a layer share values: they are chosen when first asked for, and trained from then on.

    Args:
        bits: Of an index, 1 to 8.
        shape: Of the weights.

    Attributes:
        chosen: Whether it is known which weights share a value.
        indices: Which of the values each weight has, uint8.
    """

    chosen: Tensor
    indices: Tensor

    def __init__(self, bits: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("chosen", torch.zeros((), dtype=torch.bool))
        self.register_buffer("indices", torch.zeros(shape, dtype=torch.uint8))

    def reset(self) -> None:
        """Forgets which weights share a value: the next ones choose."""
        self.chosen.fill_(False)

    def forward(self, weight: Tensor) -> Tensor:
        """Weights of the same shape, of at most 2^bits values; see `shared_weight`."""
        if not self.chosen:
            _, indices = share_weights(weight, self.bits, torch.Generator().manual_seed(0))
            self.indices.copy_(indices)
            self.chosen.fill_(True)
        return shared_weight(weight, self.indices, 1 << self.bits)


def _seeds(values: Tensor, counts: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Increasing seeds (size,) by greedy k-means++ among the increasing values (values,).

    A seed is drawn with odds of counts times squared distance to the nearest seed so far (Arthur and Vassilvitskii,
    SODA 2007), and of 2 + ⌊ln size⌋ draws the one is kept that lowers the sum of these most, as scikit-learn does.
    """
    odds = counts.clone()
    chosen: list[int] = []
    for _ in range(size):
        sums = odds.cumsum(0)
        draws = torch.rand(2 + int(math.log(size)), generator=generator, dtype=torch.float64)
        best: tuple[float, int, slice, Tensor] | None = None
        for at in torch.searchsorted(sums, sums[-1] * draws, right=True).clamp_max(len(values) - 1).tolist():
            i = bisect(chosen, at)
            between = slice(chosen[i - 1] if i else 0, chosen[i] if i < len(chosen) else len(values))
            after = counts[between] * (values[between] - values[at]).square()
            after = torch.minimum(odds[between], after) if chosen else after  # nearer to another seed
            gain = float((odds[between] - after).sum())
            if best is None or gain > best[0] or not chosen:
                best = gain, at, between, after
        assert best is not None
        _, at, between, odds[between] = best
        insort(chosen, at)
    return values[chosen]


def _lloyd(values: Tensor, counts: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Centroids (clusters,) in increasing order, and the cluster of each of the increasing values (values,)."""
    ends = None
    zero = values.new_zeros(1)
    number, total = (torch.cat([zero, x.cumsum(0)]) for x in (counts, counts * values))
    for _ in range(ITERATIONS):
        new = torch.searchsorted(values, (centroids[1:] + centroids[:-1]) / 2)
        if ends is not None and torch.equal(new, ends):
            break
        ends = new
        bounds = torch.cat([ends.new_zeros(1), ends, ends.new_full((1,), len(values))])
        size = number[bounds].diff()
        centroids = torch.where(size > 0, total[bounds].diff() / size.clamp_min(1), centroids)  # empty ones stay
    assert ends is not None
    return centroids, torch.searchsorted(ends, torch.arange(len(values)), right=True)
