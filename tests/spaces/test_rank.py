"""Low rank against hand-counted numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwnas.spaces import Operator, Workload
from hwnas.spaces.rank import factorise, rank_of

WHOLE = Operator(
    "conv", 64, 64, (8, 8), (8, 8), weight_bits=8, in_bits=4, out_bits=8, activation="relu", affine="norm",
    name="b.project", inputs=("before",), held_bytes=12,
)  # fmt: skip


@pytest.mark.parametrize(
    ("channels", "ratio", "rank"),
    [
        ((64, 64), 0.5, 16),  # the even rank is 32
        ((64, 64), 0.25, 8),
        ((64, 64), 1.0, 0),
        ((96, 24), 0.5, 8),  # even 19.2, half of it 9.6, to a multiple of 4
        ((16, 16), 0.25, 4),  # even 8, a quarter of it 2, at least 4
        ((8, 8), 0.5, 0),  # even 4: nothing saved
        ((4, 400), 0.5, 0),
    ],
)
def test_rank_is_relative_to_the_even_split(channels: tuple[int, int], ratio: float, rank: int) -> None:
    assert rank_of(*channels, ratio) == rank


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.75, 0.95])
def test_factors_always_cost_less_than_the_layer(ratio: float) -> None:
    for cin in range(4, 200, 12):
        for cout in range(4, 200, 20):
            layer = Operator("conv", cin, cout, (2, 2), (2, 2))
            factors = factorise(layer, rank_of(cin, cout, ratio))
            if len(factors) == 2:
                assert sum(f.macs for f in factors) < layer.macs
                # The ratio is the share of MACs that remains, up to rounding to a multiple of 4.
                even = cin * cout / (cin + cout)
                assert abs(sum(f.macs for f in factors) / layer.macs - ratio) <= max(2 / even, 4 / even - ratio) + 1e-9


def test_factors_chain_like_the_layer() -> None:
    first, second = factorise(WHOLE, rank_of(64, 64, 0.5))
    assert (first.in_channels, first.out_channels) == (64, 16)
    assert (second.in_channels, second.out_channels) == (16, 64)
    assert (first.activation, first.affine, second.activation, second.affine) == ("none", "none", "relu", "norm")
    assert (first.in_bits, first.out_bits, second.in_bits, second.out_bits) == (4, 4, 4, 8)
    assert first.weight_bits == second.weight_bits == 8
    assert (first.name, second.name) == ("b.project_in", "b.project")
    assert (first.inputs, second.inputs) == (("before",), ("b.project_in",))
    assert first.held_bytes == second.held_bytes == 12
    before = Operator("conv", 64, 64, (8, 8), (8, 8), name="before", out_bits=4)
    wired = Workload.wire([before, first, second])
    assert wired.operators[2].inputs == ("b.project_in",)


def test_each_group_is_factorised_by_itself() -> None:
    first, second = factorise(replace(WHOLE, groups=4), rank_of(64, 64, 0.5))
    assert first.groups == second.groups == 4
    assert [first.weights, second.weights] == [4 * 16 * 4, 4 * 4 * 16]  # of 4 · 16 · 16: half of them remain


def test_a_layer_left_whole_is_the_layer() -> None:
    assert factorise(WHOLE, 0) == (WHOLE,)
    assert factorise(WHOLE, 0)[0] is WHOLE
