"""Histograms: no value lost, whatever comes in which order."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hwnas.spaces.compression.range_observer import BINS, RangeObserver
from hwnas.spaces.errors import InvalidOptionError


def observed(*batches: Tensor) -> RangeObserver:
    observer = RangeObserver()
    for batch in batches:
        observer.add(batch)
    return observer


def same(one: RangeObserver, other: RangeObserver) -> bool:
    facts = [(o.low, o.high, o.zeros, o.width) for o in (one, other)]
    return facts[0] == facts[1] and torch.equal(one.counts, other.counts) and torch.equal(one.edges(), other.edges())


def test_counts_by_hand() -> None:
    observer = observed(torch.tensor([0.0, 1.0, 1.5, -2.0, 0.0, 2046.0]))
    assert (observer.low, observer.high, observer.zeros, observer.width) == (-2.0, 2046.0, 2, 2.0)
    assert {int(e): int(c) for e, c in zip(observer.edges(), observer.counts, strict=False) if c} == {
        -2: 1,
        0: 2,
        2046: 1,
    }
    assert observer.total == 6
    assert observed(torch.tensor([-1.0, 2046.0])).width == 1.0, "-1 … 2046 are 2048 bins"


@pytest.mark.parametrize("shift", [0.0, 3.0, -100.0])
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e20])
def test_each_bin_holds_the_values_between_its_edges(scale: float, shift: float) -> None:
    x = scale * (torch.randn(5000, generator=torch.Generator().manual_seed(0)) + shift)
    x[::7] = 0.0
    observer = observed(x)
    edges, others = observer.edges(), x[x != 0].double()
    inside = (others[:, None] >= edges[:-1]) & (others[:, None] < edges[1:])
    assert torch.equal(inside.sum(0), observer.counts)
    assert (observer.low, observer.high) == (min(float(x.min()), 0.0), max(float(x.max()), 0.0))
    assert observer.zeros == int((x == 0).sum())
    assert observer.total == 5000
    assert BINS / 2 <= len(observer.counts) <= BINS
    assert 0.0 in edges.tolist()


def test_batches_in_any_order_are_one_batch() -> None:
    generator = torch.Generator().manual_seed(1)
    parts = [
        s * torch.randn(n, generator=generator) + m for n, s, m in [(9, 1, 0), (70, 1e-4, 3), (50, 40, -9), (1, 0, 0)]
    ]
    whole = observed(torch.cat(parts))
    assert same(observed(*parts), whole)
    assert same(observed(*reversed(parts)), whole)
    assert same(observed(*torch.cat(parts).split(1)), whole)


def test_from_nothing_to_far_away() -> None:
    observer = observed(torch.zeros(5), torch.tensor([1e-42, -1e-42]), torch.tensor([3e38]), torch.tensor([]))
    assert (observer.total, observer.zeros, observer.high) == (8, 5, pytest.approx(3e38))
    assert observer.counts.nonzero().flatten().tolist() == [0, 1, len(observer.counts) - 1]
    assert math.isfinite(observer.width)


def test_other_precisions_and_shapes() -> None:
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).half()
    assert same(observed(x), observed(x.double().flatten()))
    assert same(observed(x), observed(x.to(memory_format=torch.channels_last)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    observer = observed(torch.tensor([1.0]))
    with pytest.raises(InvalidOptionError, match="where the network diverges"):
        observer.add(torch.tensor([0.5, value, 7.0]))
    assert same(observer, observed(torch.tensor([1.0])))
