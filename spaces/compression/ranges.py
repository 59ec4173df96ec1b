"""Ranges of activations for linear quantisation, from a histogram of what was observed.

A method gives ``(low, high)``, low ≤ 0 ≤ high, for `hwnas.spaces.quantizers.ActivationQuantizer`: 2^bits evenly spaced
levels, shifted by at most half a step so that zero is one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hwnas.spaces.compression.range_observer import RangeObserver
from hwnas.spaces.errors import InvalidOptionError, UnknownNameError

Range = tuple[float, float]
RangeMethod = Callable[[RangeObserver, int], Range]
"""From what was observed, and the bits, to a range."""

KL_CANDIDATES = 256
"""The most ranges that `kl` compares."""
FLOOR = 1e-6
"""The share of the quantised distribution that `kl` spreads evenly, so that no bin has probability 0."""


def find_range(observer: RangeObserver, bits: int, method: str) -> Range:
    """The range ``(low, high)`` by a method's name; (0, 0) where only zeros were observed.

    Args:
        observer: What was observed.
        bits: 1 to 16.
        method: One of `RANGE_METHODS`.

    Raises:
        UnknownNameError: A method that does not exist.
        InvalidOptionError: Nothing was observed, or other bits.
    """
    if method not in RANGE_METHODS:
        raise UnknownNameError("range method", method, RANGE_METHODS)
    if not 1 <= bits <= 16:
        raise InvalidOptionError(f"a range for {bits} bits; activations have 1 to 16")
    if not observer.total:
        raise InvalidOptionError("a range of values of which none was observed; add batches to the observer first")
    if observer.low == observer.high:
        return 0.0, 0.0
    return RANGE_METHODS[method](observer, bits)


def minmax(observer: RangeObserver, bits: int) -> Range:
    """The extremes: nothing is clipped."""
    return observer.low, observer.high


def percentile(observer: RangeObserver, bits: int, share: float = 0.9999) -> Range:
    """The quantiles 1 − ``share`` and ``share``, interpolated within bins, and never beyond the extremes or zero.

    FQN (Li et al., CVPR 2019) takes 0.999.

    Raises `InvalidOptionError` for a share that is not above a half and at most 1.
    """
    if not 0.5 < share <= 1:
        raise InvalidOptionError(f"a percentile of {share}; it is a share above 0.5, and at most 1")
    counts, edges = observer.counts.double(), observer.edges()
    below = torch.cat([torch.zeros(1, dtype=torch.float64), counts.cumsum(0)])
    below = below + observer.zeros * (edges > 0)  # those at each edge or beneath, zeros in the first bin above 0
    low, high = (_interpolated(edges, below, q * observer.total) for q in (1 - share, share))
    return max(observer.low, min(low, 0.0)), min(observer.high, max(high, 0.0))


def _interpolated(edges: Tensor, below: Tensor, count: float) -> float:
    """Where the cumulative counts reach ``count``."""
    at = int(torch.searchsorted(below, count).clamp(1, len(below) - 1))
    left, right = float(below[at - 1]), float(below[at])
    part = (count - left) / (right - left) if right > left else 0.0
    return float(edges[at - 1]) + part * float(edges[at] - edges[at - 1])


def mse(observer: RangeObserver, bits: int) -> Range:
    """The range of the least mean squared error, of rounding and clipping together; see `squared_error`.

    Tries a coarse geometric grid of both ends, from the extremes to a thousandth of them, then moves one end after the
    other along a closer one and to 0, and in finer steps around the best. An end at zero stays there.
    """
    coarse = torch.cat([torch.zeros(1, dtype=torch.float64), 2.0 ** -(torch.arange(81, dtype=torch.float64) / 8)])
    fine = 2.0 ** torch.linspace(-1 / 8, 1 / 8, 33, dtype=torch.float64)
    extremes = torch.tensor([observer.low, observer.high], dtype=torch.float64)
    lows, highs = (extreme * coarse[1::4] if extreme else extreme[None] for extreme in extremes)
    best = _least(observer, bits, torch.cartesian_prod(lows, highs))
    for ratios in (coarse, coarse, fine, fine, fine):
        for end in extremes.nonzero().flatten().flip(0).tolist():
            candidates = best.repeat(len(ratios) + 1, 1)
            start = extremes if ratios is coarse else best
            candidates[:-1, end] = (start[end] * ratios).clamp(*extremes.tolist())
            best = _least(observer, bits, candidates)
    return float(best[0]), float(best[1])


def _least(observer: RangeObserver, bits: int, candidates: Tensor) -> Tensor:
    """That of the ranges (candidates, 2) which has the least error."""
    candidates = candidates[candidates[:, 1] > candidates[:, 0]]
    return candidates[squared_error(observer, bits, candidates).argmin()]


def squared_error(observer: RangeObserver, bits: int, ranges: Tensor) -> Tensor:
    """The mean squared error (candidates,) of quantising what was observed to ranges (candidates, 2), float64.

    Exact for values that are spread evenly in each bin, also where levels are closer than bins: the integral of
    (x − level)² is s³ (n / 12 + (x/s − n)³ / 3) up to a constant, where s is the step and n the level at x.
    """
    top = (1 << bits) - 1
    step = ((ranges[:, 1:] - ranges[:, :1]) / top).clamp_min(1e-8)
    zero = torch.round(-ranges[:, :1] / step).clamp(0, top)
    scaled = observer.edges() / step
    level = scaled.round().maximum(-zero).minimum(top - zero)
    integral = step**3 * (level / 12 + (scaled - level) ** 3 / 3)
    density = observer.counts.double() / observer.width
    return (integral.diff(dim=1) * density).sum(1) / observer.total


def kl(observer: RangeObserver, bits: int) -> Range:
    """The range whose quantised distribution has the least Kullback–Leibler divergence from the observed one.

    As in HAQ (Wang et al., CVPR 2019, section 3.3) and TensorRT's calibration (Migacz, GTC 2017): the reference P is
    the histogram within the range, with what lies outside added to its outermost bins; Q is the histogram without that,
    each level's counts spread evenly over the bins of P that are not empty and round to it. Candidates are clipped at
    ±t, for t from where a range has as many bins as levels. An end whose extreme is nearer to zero than t is that
    extreme, so that tensors without negative values have the range 0 … t. Three deviations: values of exactly 0 are
    left out, since every range represents them; levels are those of the quantiser rather than equal groups of bins; and
    Q has a floor of a millionth in place of empty bins.
    """
    edges = observer.edges()
    levels = 1 << bits
    near, far = sorted((-observer.low, observer.high))
    least = levels * observer.width  # the narrowest range
    best, divergence = minmax(observer, bits), float("inf")
    for t in torch.linspace(far, min(far, max(least / 2, least - near)), KL_CANDIDATES, dtype=torch.float64).tolist():
        low, high = max(observer.low, -t), min(observer.high, t)
        inside = ((edges[:-1] <= high) & (edges[1:] > low)).nonzero()
        found = _divergence(observer, slice(int(inside[0]), int(inside[-1]) + 1), low, high, levels)
        if found < divergence:
            best, divergence = (low, high), found
    return best


def _divergence(observer: RangeObserver, inside: slice, low: float, high: float, levels: int) -> float:
    """KL(P‖Q) of a range, which holds the bins ``inside``; infinite where these are empty."""
    counts, edges = observer.counts.double(), observer.edges()
    kept = counts[inside]
    if not kept.any():
        return float("inf")
    p = kept.clone()
    p[0] += counts[: inside.start].sum()
    p[-1] += counts[inside.stop :].sum()
    used = (p > 0).double()
    step = (high - low) / (levels - 1)
    zero = round(-low / step)
    centres = edges[inside] + observer.width / 2
    level = (torch.round(centres / step) + zero).clamp(0, levels - 1).long()
    mass, bins = (torch.zeros(levels, dtype=torch.float64).index_add_(0, level, of) for of in (kept, used))
    q = (mass / bins.clamp_min(1))[level] * used
    p, q = p / p.sum(), (1 - FLOOR) * q / q.sum() + FLOOR * used / used.sum()
    return float(torch.special.xlogy(p, p / q.where(p > 0, 1.0)).sum())


RANGE_METHODS: Mapping[str, RangeMethod] = {"minmax": minmax, "percentile": percentile, "mse": mse, "kl": kl}
"""Methods by name; one more is an entry here."""
