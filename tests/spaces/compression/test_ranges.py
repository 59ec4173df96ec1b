"""Ranges: what each method clips, and by how much its levels miss the data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import hardswish

from hwnas.spaces.compression.range_observer import RangeObserver
from hwnas.spaces.compression.ranges import RANGE_METHODS, Range, find_range, percentile, squared_error
from hwnas.spaces.errors import InvalidOptionError, UnknownNameError
from hwnas.spaces.quantizers import ActivationQuantizer


def normal(count: int = 20_000, seed: int = 0) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def with_outlier(x: Tensor) -> Tensor:
    """With one value more, fifty times as large as a usual one, where these are about 1."""
    return torch.cat([x, torch.tensor([50.0])])


DATA = {
    "normal": normal(),
    "relu": normal().relu(),
    "relu6": (3 * normal()).clamp(0, 6),
    "hardswish": hardswish(3 * normal()),
    "negative": -normal().abs(),
    "far from zero": 5 + 0.1 * normal(),
    "heavy tails": normal() ** 3,
    "outlier": with_outlier(normal()),
}


def observed(x: Tensor) -> RangeObserver:
    observer = RangeObserver()
    observer.add(x)
    return observer


def missed(x: Tensor, bits: int, found: Range) -> float:
    """The mean squared error of the project's quantiser with a range, on the values themselves."""
    quantizer = ActivationQuantizer(bits).eval()
    quantizer.low.fill_(found[0])
    quantizer.high.fill_(found[1])
    return float((quantizer(x).double() - x).square().mean())


@pytest.mark.parametrize("method", sorted(RANGE_METHODS))
@pytest.mark.parametrize("name", sorted(DATA))
def test_every_range_holds_zero_and_none_exceeds_the_extremes(name: str, method: str) -> None:
    x = DATA[name]
    for bits in (2, 4, 8):
        low, high = find_range(observed(x), bits, method)
        assert min(float(x.min()), 0.0) <= low <= 0.0 <= high <= max(float(x.max()), 0.0)
        assert low < high
        if x.min() >= 0:
            assert low == 0.0
        if x.max() <= 0:
            assert high == 0.0


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("name", sorted(DATA))
def test_mse_misses_least_on_the_values_themselves(name: str, bits: int) -> None:
    x = DATA[name]
    observer = observed(x)
    least = missed(x, bits, find_range(observer, bits, "mse"))
    for method in RANGE_METHODS:
        assert least <= 1.01 * missed(x, bits, find_range(observer, bits, method)), method
    grid = torch.linspace(0.05, 1, 24).tolist()
    tried = [(a * observer.low, b * observer.high) for a in (grid if observer.low else [0.0]) for b in grid]
    if observer.high == 0.0:
        tried = [(a * observer.low, 0.0) for a in grid]
    assert least <= 1.01 * min(missed(x, bits, r) for r in tried)


@pytest.mark.parametrize("name", sorted(DATA))
def test_the_histograms_error_is_that_of_the_values(name: str) -> None:
    x = DATA[name]
    ranges = torch.tensor([[x.min(), x.max()], [-0.7, 1.9], [0.0, 2.5], [-3.1, 0.0]], dtype=torch.float64)
    ranges[0] = torch.stack([ranges[0, 0].clamp_max(0), ranges[0, 1].clamp_min(0)])
    for bits in (1, 2, 4, 8):
        found = squared_error(observed(x), bits, ranges).tolist()
        assert found == pytest.approx([missed(x, bits, tuple(r)) for r in ranges.tolist()], rel=0.06)


@pytest.mark.parametrize(("method", "bits"), [("percentile", 4), ("percentile", 8), ("kl", 4), ("kl", 8), ("mse", 4)])
@pytest.mark.parametrize("rectified", [False, True])
def test_an_outlier_costs_the_bulk_less_than_with_extremes(method: str, bits: int, rectified: bool) -> None:
    bulk = normal(100_000).relu() if rectified else normal(100_000)
    observer = observed(with_outlier(bulk))
    extremes = missed(bulk, bits, find_range(observer, bits, "minmax"))
    assert missed(bulk, bits, find_range(observer, bits, method)) < 0.6 * extremes


def test_mse_keeps_an_outlier_where_clipping_it_would_cost_more_than_it_saves() -> None:
    observer = observed(with_outlier(normal(100_000)))
    assert find_range(observer, 4, "mse")[1] < 10
    # Clipping 50 to 5 adds 45² / 100 000 = 0.02 to the mean; 8 bits for 55 add 0.2² / 12 = 0.004.
    assert find_range(observer, 8, "mse")[1] > 30


def test_minmax_is_exact() -> None:
    assert find_range(observed(torch.tensor([-1.25, 0.3, 7.1])), 4, "minmax") == (-1.25, pytest.approx(7.1))
    assert find_range(observed(torch.tensor([3.0, 4.0])), 4, "minmax") == (0.0, 4.0)


@pytest.mark.parametrize("share", [0.9, 0.99, 0.999, 0.9999])
def test_percentiles_are_quantiles(share: float) -> None:
    x = normal(200_000)
    low, high = percentile(observed(x), 8, share)
    expected = x.double().quantile(torch.tensor([1 - share, share], dtype=torch.float64))
    assert [low, high] == pytest.approx(expected.tolist(), abs=0.01)
    _, high = percentile(observed(x.relu()), 8, share)
    assert high == pytest.approx(float(expected[1]), abs=0.01), "zeros count"
    assert find_range(observed(x), 8, "percentile") == percentile(observed(x), 8, 0.9999)
    assert percentile(observed(x), 8, 1.0) == (float(x.min()), float(x.max()))


def test_kl_keeps_what_is_frequent_and_clips_what_is_rare() -> None:
    x = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    low, high = find_range(observed(x), 4, "kl")
    assert (low, high) == (0.0, pytest.approx(1.0, abs=0.02)), "nothing of a uniform distribution is rare"
    low, high = find_range(observed(torch.cat([DATA["relu"], 20 + 60 * x[:20]])), 4, "kl")
    assert low == 0.0
    assert 2 < high < 8


def test_kl_keeps_a_peak_at_the_end() -> None:
    x = (3 * normal(200_000)).clamp(0, 6)
    assert find_range(observed(x), 8, "kl") == (0.0, 6.0)


def test_kl_clips_more_for_fewer_bits_and_both_ends_alike() -> None:
    observer = observed(normal(100_000))
    highs = [find_range(observer, bits, "kl")[1] for bits in (2, 4, 8)]
    assert highs == sorted(highs)
    assert highs[0] < 0.8 * highs[2]
    low, high = find_range(observer, 4, "kl")
    assert low == -high
    low, high = find_range(observed(DATA["hardswish"]), 4, "kl")
    assert (low, high) == (pytest.approx(-0.375, abs=1e-3), pytest.approx(9, rel=0.5)), "an end that is near stays"


@pytest.mark.parametrize("method", sorted(RANGE_METHODS))
def test_ranges_follow_the_scale_and_the_sign(method: str) -> None:
    x = normal(200_000).relu()
    low, high = find_range(observed(x), 4, method)
    assert find_range(observed(64 * x), 4, method) == (64 * low, 64 * high)
    mirrored = find_range(observed(-x), 4, method)
    assert mirrored == (pytest.approx(-high, rel=0.02), 0.0)


@pytest.mark.parametrize("method", sorted(RANGE_METHODS))
def test_only_zeros_and_single_values(method: str) -> None:
    assert find_range(observed(torch.zeros(9)), 4, method) == (0.0, 0.0)
    low, high = find_range(observed(torch.full((9,), 3.0)), 4, method)
    assert low == 0.0
    assert missed(torch.full((9,), 3.0), 4, (low, high)) < 1e-4


def test_what_makes_no_sense_is_refused() -> None:
    observer = observed(normal(10))
    with pytest.raises(UnknownNameError, match="did you mean 'minmax'"):
        find_range(observer, 4, "min-max")
    with pytest.raises(InvalidOptionError, match="for 0 bits"):
        find_range(observer, 0, "mse")
    with pytest.raises(InvalidOptionError, match="none was observed"):
        find_range(RangeObserver(), 4, "mse")
    with pytest.raises(InvalidOptionError, match=r"percentile of 99\.9"):
        percentile(observer, 8, 99.9)
