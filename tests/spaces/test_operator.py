"""Operators against numbers that one can count by hand."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import get_args

import pytest

from hwnas.spaces import Operator
from hwnas.spaces.call_text import call_text
from hwnas.spaces.operator import Activation, Affine, Kind, stored_bits

CONV = Operator("conv", 3, 8, (32, 32), (16, 16), 3, 2, affine="norm", name="stem")
DEPTHWISE = Operator("conv", 8, 8, (16, 16), (16, 16), 5, 1, 8, affine="norm", name="dw")
POINTWISE = Operator("conv", 8, 24, (16, 16), (16, 16), affine="norm", name="pw")
LINEAR = Operator("linear", 64, 10, affine="bias", name="classifier")
POOL = Operator("pool", 64, 64, (4, 4), name="pool")
ADD = Operator("add", 8, 8, (16, 16), (16, 16), name="add")
GELU = call_text([("aten.gelu.default", [{"input": 0}], {})])


def test_macs() -> None:
    assert CONV.macs == 8 * 3 * 9 * 16 * 16 == 55_296
    assert DEPTHWISE.macs == 8 * 25 * 16 * 16 == 51_200
    assert POINTWISE.macs == 8 * 24 * 16 * 16 == 49_152
    assert LINEAR.macs == 640
    assert POOL.macs == ADD.macs == 0
    grouped = Operator("conv", 8, 16, (4, 4), (4, 4), 3, groups=4)
    assert grouped.macs == 16 * 2 * 9 * 16 == 4608


def test_params() -> None:
    assert CONV.params == 8 * 27 + 2 * 8 == 232
    assert DEPTHWISE.params == 8 * 25 + 16 == 216
    assert LINEAR.params == 640 + 10
    assert replace(LINEAR, affine="none").params == 640
    assert POOL.params == ADD.params == 0


@pytest.mark.parametrize(("bits", "stored"), [(1, 4), (2, 4), (4, 4), (5, 8), (7, 8), (8, 8), (9, 32), (32, 32)])
def test_stored_bits(bits: int, stored: int) -> None:
    assert stored_bits(bits) == stored


@pytest.mark.parametrize(
    ("weight_bits", "in_bits", "out_bits", "affine", "expected"),
    [
        (32, 32, 32, "none", 4 * 192),
        (32, 32, 32, "norm", 4 * 192 + 4 * 24),  # a folded normalisation is a float bias
        (8, 32, 32, "norm", 192 + 4 * 24 + 4 * 24),  # a scale per channel, float bias
        (8, 8, 8, "norm", 192 + 5 * 24 + 8 * 24),  # a zero point beside it, integer bias with its scale
        (7, 8, 8, "norm", 192 + 5 * 24 + 8 * 24),  # stored as 8 bits
        (4, 8, 8, "norm", 96 + 5 * 24 + 8 * 24),
        (4, 4, 4, "none", 96 + 5 * 24),
        (4, 8, 32, "norm", 96 + 5 * 24 + 4 * 24),  # a float output, so no integer kernel
        (32, 8, 8, "norm", 4 * 192 + 4 * 24),
    ],
)
def test_weight_bytes(weight_bits: int, in_bits: int, out_bits: int, affine: Affine, expected: int) -> None:
    operator = replace(POINTWISE, weight_bits=weight_bits, in_bits=in_bits, out_bits=out_bits, affine=affine)
    assert operator.weight_bytes == expected


def test_an_odd_number_of_4_bit_weights_is_rounded_up_to_a_byte() -> None:
    assert Operator("conv", 3, 3, kernel=3, weight_bits=4).weight_bytes == 41 + 12  # 81 half bytes


def test_operators_without_weights_store_nothing() -> None:
    for operator in (POOL, ADD, Operator("quantize", 3, 3, (8, 8), (8, 8), out_bits=8)):
        assert operator.weight_bytes == 0


def test_activation_bytes() -> None:
    assert (CONV.in_bytes, CONV.out_bytes) == (4 * 3 * 32 * 32, 4 * 8 * 16 * 16)
    quantised = replace(CONV, in_bits=8, out_bits=4, held_bytes=100)
    assert (quantised.in_bytes, quantised.out_bytes) == (3072, 2048)  # 4-bit values take a byte each
    assert quantised.live_bytes == 3072 + 2048 + 100


def test_integer_operators_read_weigh_and_write_integers() -> None:
    low = replace(POINTWISE, weight_bits=8, in_bits=8, out_bits=4)
    assert low.integer
    for changed in (replace(low, weight_bits=32), replace(low, in_bits=32), replace(low, out_bits=32)):
        assert not changed.integer
    assert replace(LINEAR, weight_bits=8, in_bits=8, out_bits=32).integer, "classifiers write floats"
    assert replace(ADD, in_bits=8, out_bits=8).integer
    assert not replace(ADD, in_bits=8, out_bits=32).integer


def test_kinds_and_activations_without_integer_kernels() -> None:
    low = replace(POINTWISE, weight_bits=8, in_bits=8, out_bits=8)
    integer = {a for a in get_args(Activation) if replace(low, activation=a).integer}
    assert integer == {"none", "relu", "relu6"}, "the others are computed in floats before they are rounded"
    in_8_bits = replace(ADD, in_bits=8, out_bits=8, weight_bits=8, call=GELU)
    kinds = {k for k in get_args(Kind) if replace(in_8_bits, kind=k).integer}
    assert kinds == {"conv", "linear", "pool", "add", "scale", "quantize", "concat", "shuffle", "pad", "slice"}
    shuffle = Operator("shuffle", 8, 8, in_bits=8, out_bits=8, groups=2)
    assert shuffle.moves_integers
    for other in (replace(shuffle, out_bits=4), replace(shuffle, in_bits=32, out_bits=32), replace(shuffle, in_bits=4)):
        assert not other.moves_integers, "what is rounded again is not only moved"
        assert not other.integer
    assert not replace(shuffle, kind="hadamard").moves_integers


def test_amounts_of_further_kinds() -> None:
    size = {"in_size": (8, 8), "out_size": (8, 8)}
    dilated = Operator("conv", 8, 16, kernel=3, dilation=4, affine="norm", activation="prelu", **size)  # type: ignore[arg-type]
    assert dilated.padding == 4
    assert dilated.macs == 16 * 8 * 9 * 64 == 73_728
    assert dilated.params == 1152 + 2 * 16 + 16
    assert dilated.weight_bytes == 4 * 1152 + 4 * 16 + 4 * 16  # weights, folded normalisation, slopes
    sparse = replace(dilated, density=0.5, pattern=4)
    assert (sparse.macs, sparse.params, sparse.weight_bytes) == (dilated.macs, dilated.params, dilated.weight_bytes)
    assert [Operator("pool", 8, 8, kernel=k).padding for k in (1, 2, 3, 5)] == [0, 0, 1, 2]
    activate = Operator("activate", 8, 8, affine="norm", activation="prelu", **size)  # type: ignore[arg-type]
    assert (activate.macs, activate.params, activate.weight_bytes) == (0, 3 * 8, 4 * 4 * 8 + 4 * 8)
    concat = Operator("concat", 24, 24, in_bits=8, out_bits=8, **size)  # type: ignore[arg-type]
    assert (concat.in_bytes, concat.out_bytes) == (24 * 64, 24 * 64)
    for kind in ("pool", "concat", "shuffle", "hadamard", "pad", "zero"):
        other = replace(concat, kind=kind, kernel=3)
        assert other.macs == other.params == other.weight_bytes == 0


def test_kernels_that_are_not_square() -> None:
    size = {"in_size": (8, 8), "out_size": (8, 8)}
    wide = Operator("conv", 8, 16, kernel=1, kernel_width=7, dilation=2, **size)  # type: ignore[arg-type]
    assert (wide.kernel_size, wide.taps, wide.paddings, wide.padding) == ((1, 7), 7, (0, 6), 0)
    assert (wide.weights, wide.macs, wide.weight_bytes) == (16 * 8 * 7, 16 * 8 * 7 * 64, 4 * 16 * 8 * 7)
    square = Operator("conv", 8, 16, kernel=3, **size)  # type: ignore[arg-type]
    assert (square.kernel_size, square.taps, square.paddings) == ((3, 3), 9, (1, 1))
    assert wide != replace(wide, kernel_width=0)


def test_margins() -> None:
    patches = Operator("conv", 3, 16, (8, 8), (2, 2), 4, 4, margin=0)
    assert (patches.paddings, replace(patches, margin=-1).paddings) == ((0, 0), (1, 1))
    assert (patches.weights, patches.macs) == (3 * 16 * 16, 3 * 16 * 16 * 4)
    assert patches != replace(patches, margin=-1)


def test_what_can_be_said_in_two_ways_is_said_in_one() -> None:
    assert replace(CONV, kernel_width=3) == replace(CONV, margin=1) == CONV
    assert hash(replace(CONV, kernel_width=3, margin=1)) == hash(CONV)
    assert replace(POINTWISE, margin=0) == POINTWISE
    assert replace(CONV, kernel_width=1, margin=1).margin == 1, "of a kernel of one column, two more than usual"
    assert replace(replace(CONV, kernel_width=3), kernel=5).kernel_size == (5, 5)


def test_transposed_convolutions() -> None:
    deconv = Operator("deconv", 8, 6, (5, 7), (10, 14), 3, 2, affine="norm")
    assert (deconv.output_paddings, replace(deconv, kernel=4).output_paddings) == ((1, 1), (0, 0))
    assert replace(deconv, kernel=2, out_size=(10, 15)).output_paddings == (0, 1)
    assert replace(deconv, dilation=2, margin=0, out_size=(13, 17)).output_paddings == (0, 0)
    assert (deconv.weights, deconv.macs) == (8 * 6 * 9, 8 * 6 * 9 * 35), "every position read meets every weight"
    assert deconv.params == 8 * 6 * 9 + 12
    assert replace(deconv, groups=2).weights == 8 * 3 * 9
    low = replace(deconv, weight_bits=8, in_bits=8, out_bits=8)
    assert not low.integer
    assert low.weight_bytes == 8 * 6 * 9 + 5 * 6 + 4 * 6, "its bias stays in floats"
    assert not replace(deconv, groups=8, out_channels=8).depthwise


def test_where_a_pool_reaches_over_the_edge() -> None:
    pool = Operator("pool", 8, 8, (7, 7), (4, 4), 2, 2)
    assert pool.reaches_over
    assert not replace(pool, out_size=(3, 3)).reaches_over
    assert not replace(pool, in_size=(8, 8)).reaches_over
    assert not replace(pool, kernel=3).reaches_over


def test_linear_layers_on_tokens() -> None:
    tokens = Operator("linear", 64, 10, (197, 1), (197, 1), affine="bias", weight_bits=8, in_bits=8, out_bits=8)
    assert tokens.on_tokens
    assert not LINEAR.on_tokens
    assert (tokens.macs, tokens.params) == (197 * 640, 650)
    assert (tokens.in_bytes, tokens.out_bytes) == (197 * 64, 197 * 10)
    assert tokens.integer


def test_channels_before_others_make_no_difference_to_a_device() -> None:
    pad = Operator("pad", 8, 16, (4, 4), (4, 4), in_bits=8, out_bits=8)
    cut = Operator("slice", 8, 4, (4, 4), (4, 4), in_bits=8, out_bits=8)
    assert replace(pad, front=4) == pad
    assert replace(cut, front=4) == cut
    for operator in (pad, cut):
        assert operator.moves_integers
        assert operator.integer
        assert operator.macs == operator.params == operator.weight_bytes == 0


def test_depthwise_is_one_filter_per_channel() -> None:
    assert DEPTHWISE.depthwise
    assert not POINTWISE.depthwise
    assert not Operator("conv", 1, 1, groups=1).depthwise
    assert not Operator("conv", 8, 16, groups=4).depthwise


def test_equality_is_what_a_device_can_tell_apart() -> None:
    assert replace(CONV, name="other", inputs=("x",), held_bytes=7, affine="bias") == CONV
    assert hash(replace(CONV, name="other")) == hash(CONV)
    for changed in (
        replace(CONV, kernel=5),
        replace(CONV, weight_bits=8),
        replace(CONV, activation="relu"),
        replace(CONV, density=0.5),
        replace(CONV, dilation=2),
        replace(CONV, density=0.5, pattern=4),
        replace(CONV, in_size=(33, 32)),
        replace(CONV, kernel_width=1),
        replace(CONV, margin=0),
        replace(CONV, call=GELU),
    ):
        assert changed != CONV


def test_operators_are_frozen() -> None:
    with pytest.raises((FrozenInstanceError, AttributeError)):
        CONV.kernel = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("bits", "stored"),
    [
        (2, 7 + 4 * 32),  # 27 weights, two in an index of 4 bits, and a table of all 16 pairs
        (3, 14 + 4 * 8),  # 27 indices of 4 bits
        (4, 14 + 4 * 16),
        (5, 27 + 4 * 32),
        (8, 27 + 4 * 256),
    ],
)
def test_shared_weights_are_a_table_and_indices(bits: int, stored: int) -> None:
    operator = Operator("conv", 3, 1, kernel=3, affine="norm")
    shared = replace(operator, shared=bits)
    assert shared == operator, "a device cannot tell them apart"
    assert shared.weight_bytes == stored + 4 + 4  # a factor and a bias
    assert replace(shared, affine="none").weight_bytes == stored
