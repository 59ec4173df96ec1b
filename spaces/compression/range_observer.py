"""A histogram of the values that arrive somewhere, whose range grows with them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hwnas.spaces.errors import InvalidOptionError

BINS = 2048
"""The most bins; half of them or more lie between the extremes."""
NARROWEST = -120
"""The narrowest bins are 2 to this power wide, so that float32 divides by it exactly."""


class RangeObserver:
    """Counts values in bins, batch by batch, and keeps their exact extremes.

    Bins are as wide as a power of two, and one begins at zero. Where values come that do not fit, neighbours are merged
    until they do. So no count is lost, and the histogram is the same in whatever batches, and in whatever order, the
    values come. Exact zeros, of which rectifiers write many, are counted apart: every quantiser has a level for them.

    Attributes:
        low: The least value or 0, whichever is smaller.
        high: The greatest value or 0, whichever is larger.
        zeros: Values that are exactly 0.
        counts: Values other than 0 in each bin, int64, (bins,), from the bin of ``low`` to that of ``high``.
        width: Of a bin, in the units of the values.
    """

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self.zeros = 0
        self.counts = torch.zeros(1, dtype=torch.int64)
        self._exponent = NARROWEST
        self._first = 0

    @property
    def width(self) -> float:
        """See above."""
        return math.ldexp(1.0, self._exponent)

    @property
    def total(self) -> int:
        """All values, zeros included."""
        return self.zeros + int(self.counts.sum())

    def edges(self) -> Tensor:
        """The bins' edges in order, float64, (bins + 1,). Values at an edge belong to the bin above it."""
        return (self._first + torch.arange(len(self.counts) + 1, dtype=torch.float64)) * self.width

    @torch.no_grad()
    def add(self, values: Tensor) -> None:
        """Counts the values, of any shape, on any device.

        Raises `InvalidOptionError` for values that are not finite.
        """
        if not values.numel():
            return
        values = values.detach().flatten().to(torch.promote_types(values.dtype, torch.float32))
        least, greatest = float(values.amin()), float(values.amax())
        if not math.isfinite(least) or not math.isfinite(greatest):
            raise InvalidOptionError(
                f"values from {least} to {greatest} have no range; find out where the network diverges, or leave the "
                "batch out"
            )
        self._widen(min(least, self.low), max(greatest, self.high))
        bins = (values * math.ldexp(1.0, -self._exponent)).floor_().sub_(self._first).int()  # exact: a power of two
        self.counts += torch.bincount(bins, minlength=len(self.counts)).cpu()
        zeros = len(values) - int(values.count_nonzero())
        self.counts[-self._first] -= zeros
        self.zeros += zeros

    def _widen(self, low: float, high: float) -> None:
        """Makes room for values from ``low`` to ``high``, at least as far apart as before."""
        exponent = max(self._exponent, _exponent(low, high))
        first, last = _bin(low, exponent), _bin(high, exponent)
        old = (self._first + torch.arange(len(self.counts))) >> min(exponent - self._exponent, 62)  # rounds down
        counts = torch.zeros(last - first + 1, dtype=torch.int64)
        self.counts = counts.index_add_(0, old - first, self.counts)
        self.low, self.high, self._exponent, self._first = low, high, exponent, first


def _bin(value: float, exponent: int) -> int:
    return math.floor(math.ldexp(value, -exponent))


def _exponent(low: float, high: float) -> int:
    """Of the narrowest bins of which no more than `BINS` reach from ``low`` to ``high``."""
    exponent = max(NARROWEST, math.frexp(high - low)[1] - BINS.bit_length())
    while _bin(high, exponent) - _bin(low, exponent) >= BINS:
        exponent += 1
    return exponent
