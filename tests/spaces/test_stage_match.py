"""Networks found in spaces by their stage tables, and what is said of those that a space lacks."""

from __future__ import annotations

from typing import Any

import pytest

from hwnas.spaces.stage_match import LacksError

from .tiny_tables import MBCONV, TINY, tiny


@pytest.mark.parametrize(("kernel", "depth", "channels"), [(3, 1, 8), (5, 2, 16), (3, 2, 16)])
def test_a_table_is_found(kernel: int, depth: int, channels: int) -> None:
    space = tiny()
    assert space.find is not None
    stage = {**MBCONV, "kernel": kernel, "channels": channels, "repeats": depth, "stride": 2}
    found = space.find(space, {**TINY, "stages": [stage]})
    assert found["s1.depth"] == depth
    assert found["s1.width"] == channels
    assert found["s1b1.kernel"] == kernel


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{**MBCONV, "channels": 12, "stride": 2}], r"its block 1 is .* to 12 channels.*; s1.width offers 8, 16"),
        ([{**MBCONV, "kernel": 7, "channels": 8, "stride": 2}], r"block 1 is 7×7.*; s1b1.kernel offers 3, 5"),
        (
            [{**MBCONV, "expansion": 4, "channels": 8, "stride": 2}],
            "no decision for that: expansion of s1b1 is always 6",
        ),
        ([{**MBCONV, "channels": 8}], "block 1 .* is at s1b1 of the space, of stride 2"),
        (
            [{**MBCONV, "channels": 8, "stride": 2, "repeats": 3}],
            "it goes on with block 3 .* where the space's stages end",
        ),
        ([{"op": "conv", "channels": 8, "stride": 2}], "convolution 3×3 .*; .*: op of s1b1 is always mbconv"),
        (
            [{**MBCONV, "channels": 8, "stride": 2}, {**MBCONV, "channels": 8, "residual": False}],
            "without residual; .*: residual of s1b2 is always True",
        ),
    ],
)
def test_what_a_space_lacks_is_said(stages: list[dict[str, Any]], message: str) -> None:
    space = tiny()
    assert space.find is not None
    with pytest.raises(LacksError, match=message):
        space.find(space, {**TINY, "stages": stages})


FOUR = {"block": ["a", "b", "none"], "repeats": 4, "stride": 2}
SKIPPING: dict[str, Any] = {
    "blocks": {"a": {"kernel": 3, "se": 0.25}, "b": {"kernel": 5}, "none": {"op": "skip"}},
    "stages": [{**FOUR, "channels": 16}, {**FOUR, "channels": 24}],
}
"""Two stages of one to four blocks."""
DEEP: dict[str, Any] = {
    "stages": [
        {**MBCONV, "channels": 16, "repeats": [2, 3], "stride": 2},
        {**MBCONV, "channels": 24, "repeats": [2, 3]},
    ]
}
"""Two stages of two or three blocks."""
A, B = ({**MBCONV, "expansion": 1, "channels": channels, "stride": 2} for channels in (16, 24))
"""Blocks that begin the first and the second stage of `SKIPPING`."""


@pytest.mark.parametrize(
    ("space", "stages", "message"),
    [
        (SKIPPING, [{**A, "kernel": 5, "repeats": 2}, {**B, "kernel": 7}],
         r"its block 3 is 7×7, .*; s2b1.block offers a, b: none has kernel 7"),
        (SKIPPING, [{**A, "kernel": 5}, {**B, "kernel": 5, "se": 0.25}],
         r"its block 2 is 5×5, .*; s2b1.block offers a, b: none has kernel 5 with se 0.25"),
        (SKIPPING, [{**A, "kernel": 5, "repeats": 5}],
         r"its block 5 \(.*\) is one more than fits; s1 offers 1, 2, 3, 4 blocks"),
        (SKIPPING, [{**A, "kernel": 5}, {**B, "kernel": 5, "repeats": 5}],
         r"it goes on with block 6 .* where the space's stages end; s2 offers 1, 2, 3, 4 blocks"),
        (SKIPPING, [{**A, "kernel": 5}], "it ends before s2b1 of the space"),
        (SKIPPING, [{**A, "kernel": 5}, {**B, "kernel": 5, "channels": 32}],
         r"s2\.width is always 24, not channels 32"),
        (DEEP, [{**MBCONV, "channels": 16, "stride": 2}, {**MBCONV, "channels": 24, "repeats": 2}],
         r"its block 2 .* is at s1b2 of the space, which keeps its channels; s1 offers 2, 3 blocks"),
        (DEEP, [{**MBCONV, "channels": 16, "repeats": 4, "stride": 2}, {**MBCONV, "channels": 24, "repeats": 2}],
         r"its block 4 .* is one more than fits; s1 offers 2, 3 blocks"),
        (DEEP, [{**MBCONV, "channels": 16, "repeats": 3, "stride": 2}, {**MBCONV, "channels": 24}],
         "it ends before s2b2 of the space; s2 offers 2, 3 blocks"),
        (DEEP, [{**MBCONV, "channels": 16, "repeats": 2, "stride": 2},
                {**MBCONV, "channels": 24, "repeats": 2, "activation": "hswish"}],
         r"its block 3 .*: activation of s2b1 is always relu, not hswish"),
    ],
)  # fmt: skip
def test_the_lacking_decision_is_named_where_depths_vary(space: Any, stages: list[Any], message: str) -> None:
    wide = tiny(**space)
    assert wide.find is not None
    with pytest.raises(LacksError, match=message + "$"):
        wide.find(wide, {**TINY, "stages": stages})


def test_gates_and_activations_are_compared_where_the_table_states_them() -> None:
    squeezed = {**MBCONV, "se": 0.25, "channels": 8}
    space = tiny(act="hswish", gate="hsigmoid", stages=[squeezed, {**MBCONV, "channels": 8, "activation": "relu"}])
    assert space.find is not None
    network = {**TINY, "stages": [squeezed, {**MBCONV, "channels": 8}]}
    relu = {**network, "stages": [{**squeezed, "activation": "hswish"}, {**MBCONV, "channels": 8}]}
    for same in (network, {**network, "gate": "hsigmoid"}, relu):
        space.find(space, same)
    with pytest.raises(LacksError, match="its squeeze-excite gate is sigmoid, the space's hsigmoid"):
        space.find(space, {**network, "gate": "sigmoid"})
    with pytest.raises(LacksError, match=r"its block 2 is .*: activation of s2b1 is always relu, not hswish"):
        space.find(space, {**network, "act": "hswish"})
    with pytest.raises(LacksError, match="its stem's activation is relu6, the space's hswish"):
        space.find(space, {**network, "act": "relu6"})


def test_what_all_layers_depend_on_is_offered_where_it_lacks() -> None:
    space = tiny(resolution=[8, 16], width_multiplier=[0.5, 1.0])
    assert space.find is not None
    stages = [{**MBCONV, "channels": 40, "stride": 2}]
    with pytest.raises(
        LacksError, match=r"s1.width offers 8, 16 and width_multiplier offers 0.5, 1.0: none has channels"
    ):
        space.find(space, {**TINY, "stages": stages})
    with pytest.raises(
        LacksError, match=r"its stem has 24 channels, but stem.width is always 8, width_multiplier offers"
    ):
        space.find(space, {**TINY, "stem": {"channels": 24}, "stages": stages, "input": [3, 8, 8]})
    with pytest.raises(LacksError, match="its images have a side of 32, but resolution offers 8, 16"):
        space.find(space, {**TINY, "stages": stages, "input": [3, 32, 32]})


@pytest.mark.parametrize(
    ("changes", "misses"),
    [
        ({"stages": [{**MBCONV, "kernel": 7, "channels": 8, "stride": 2}]}, 1),
        ({"stages": [{**MBCONV, "kernel": 7, "channels": 12, "stride": 1, "repeats": 2}]}, 3),
        ({"stages": [{**MBCONV, "channels": 8, "stride": 2, "repeats": 5}]}, 3),
        ({"stages": [{**MBCONV, "kernel": 7, "channels": 8, "stride": 2}], "head": {"channels": 48}}, 3),
        ({"stages": [{**MBCONV, "channels": 8, "stride": 2}], "head": None}, 4),
        ({"stages": [{**MBCONV, "channels": 8, "stride": 2}], "act": "relu6"}, 3),
    ],
)
def test_the_distance_from_a_space_counts_what_it_does_not_offer(changes: dict[str, Any], misses: int) -> None:
    """A kernel; channels and a stride, too; blocks; the head's kernel and channels; a head; three activations."""
    space = tiny()
    assert space.find is not None
    with pytest.raises(LacksError) as error:
        space.find(space, {**TINY, **changes})
    assert error.value.misses == misses
