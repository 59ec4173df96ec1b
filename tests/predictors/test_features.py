"""Operators as sums of terms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwnas.predictors.features import ROLES, Family, energy_terms, family, latency_terms, measures, role
from hwnas.spaces import Operator
from tests.every_kind import OPERATORS, everything

from .synthetic import digits_space

CONV = Operator("conv", 3, 16, (8, 8), (4, 4), 3, 2)
POINTWISE = Operator("conv", 16, 24, (4, 4), (4, 4))
DEPTHWISE = Operator("conv", 24, 24, (4, 4), (4, 4), 5, 1, 24)
INTEGER = replace(POINTWISE, weight_bits=8, in_bits=8, out_bits=8)
LINEAR = Operator("linear", 64, 10)
ADD = Operator("add", 16, 16, (4, 4), (4, 4))


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (CONV, "conv"), (POINTWISE, "pointwise"), (DEPTHWISE, "depthwise"), (LINEAR, "linear"), (ADD, "add"),
        (Operator("conv", 16, 4), "vector"), (replace(DEPTHWISE, in_size=(1, 1), out_size=(1, 1)), "vector"),
        (Operator("pool", 16, 16, (4, 4)), "pool"), (Operator("pool", 16, 16, (4, 4), (4, 4), 3), "window pool"),
        (Operator("conv", 16, 24, (4, 4), (4, 4), groups=4), "grouped"),
        (Operator("concat", 16, 16, (4, 4), (4, 4)), "concat"),
        (Operator("conv", 16, 24, (4, 4), (4, 4), 1, kernel_width=3), "conv"),
        (Operator("pool", 16, 16, (4, 4), (4, 4), 1, kernel_width=3), "window pool"),
        (Operator("deconv", 16, 24, (4, 4), (8, 8), 2, 2), "deconv"),
        (OPERATORS["slice"], "slice"), (OPERATORS["call"], "call"),
    ],
)  # fmt: skip
def test_roles(operator: Operator, expected: str) -> None:
    assert role(operator) == expected


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (POINTWISE, ("pointwise", "float", "float weights")),
        (INTEGER, ("pointwise", "integer", "8-bit weights")),
        (replace(INTEGER, weight_bits=7), ("pointwise", "integer", "integer weights")),
        (replace(INTEGER, weight_bits=4), ("pointwise", "integer", "integer weights")),
        (replace(INTEGER, out_bits=32), ("pointwise", "float", "integer weights")),
        (replace(INTEGER, weight_bits=32), ("pointwise", "float", "float weights")),
        (
            replace(DEPTHWISE, weight_bits=8, in_bits=8, out_bits=8),
            ("depthwise", "integer", "integer weights"),  # never stored as uint8
        ),
        (ADD, ("add", "float", "no weights")),
        (replace(ADD, in_bits=8, out_bits=8), ("add", "integer", "no weights")),
        (replace(ADD, in_bits=8), ("add", "float<", "no weights")),
        (replace(ADD, out_bits=4), ("add", "float>", "no weights")),
    ],
)
def test_families(operator: Operator, expected: Family) -> None:
    assert family(operator) == expected


def test_amounts_by_hand() -> None:
    own = ("conv", "float", "float weights")
    assert dict(latency_terms(CONV)) == {
        (*own, "call"): 1.0,
        (*own, "in"): 3 * 64 / 1e3,
        (*own, "out"): 16 * 16 / 1e3,
        (*own, "macs"): 16 * 27 * 16 / 1e4,
        (*own, "weights"): 16 * 27 / 1e3,
        ("conv", "between", "False", "False"): 1.0,
        (*own, "positions"): 16 / 1e2,
        (*own, "in channels"): 3 / 1e2,
        (*own, "out channels"): 16 / 1e2,
        (*own, "strided call"): 1.0,
        (*own, "strided macs"): 16 * 27 * 16 / 1e4,
        (*own, "odd in call"): 1.0,  # 3 channels make no block of 8
        (*own, "odd in macs"): 16 * 27 * 16 / 1e4,
    }


def test_amounts_of_an_integer_operator_by_hand() -> None:
    own = ("depthwise", "integer", "integer weights")
    macs = 24 * 25 * 16 / 1e4
    assert dict(latency_terms(replace(DEPTHWISE, weight_bits=4, in_bits=8, out_bits=4))) == {
        (*own, "call"): 1.0,
        (*own, "in"): 24 * 16 / 1e3,
        (*own, "out"): 24 * 16 / 1e3,
        ("clip", "call"): 1.0,  # levels of 4 bits among integers of 8
        ("clip", "out"): 24 * 16 / 1e3,
        (*own, "macs"): macs,
        (*own, "weights"): 24 * 25 / 1e3,
        (*own, "positions"): 16 / 1e2,
        (*own, "in channels"): 24 / 1e2,
        (*own, "out channels"): 24 / 1e2,
        (*own, "large kernel"): macs,
    }


def test_float_operators_between_integers_pay_for_conversions() -> None:
    found = dict(latency_terms(replace(POINTWISE, in_bits=8, out_bits=8)))
    assert found["dequantise", "in"] == 16 * 16 / 1e3
    assert found["quantise", "out"] == 24 * 16 / 1e3
    assert found["pointwise", "between", "True", "True"] == 1.0
    assert not {"dequantise", "quantise"} & {term[0] for term, _ in latency_terms(INTEGER)}


def test_terms_depend_on_what_a_device_can_tell_apart_only() -> None:
    renamed = replace(CONV, name="elsewhere", inputs=("x",), held_bytes=99, affine="norm")
    assert list(latency_terms(renamed)) == list(latency_terms(CONV))


def test_amounts_of_further_kinds_by_hand() -> None:
    own, macs = ("conv", "float", "float weights"), 16 * 27 * 16 / 1e4
    plain, dilated = (dict(latency_terms(replace(CONV, dilation=d))) for d in (1, 2))
    assert dilated == plain | {(*own, "dilated call"): 1.0, (*own, "dilated macs"): macs}
    pool = dict(latency_terms(Operator("pool", 8, 8, (8, 8), (4, 4), 3, 2)))
    assert pool["window pool", "float", "no weights", "taps"] == pytest.approx(8 * 16 * 9 / 1e3)
    mix = dict(latency_terms(Operator("hadamard", 48, 48, (4, 4), (4, 4), groups=3, in_bits=8, out_bits=8)))
    steps = 4  # of the 2⁴ channels of a group
    assert mix["hadamard", "float<>", "no weights", "butterflies"] == pytest.approx(48 * 16 * steps / 1e3)
    fused, own_step = (dict(latency_terms(replace(CONV, activation=a))) for a in ("relu6", "hswish"))
    assert fused == plain
    step = {("activation", "call", "hswish"): 1.0, ("activation", "out", "hswish"): 16 * 16 / 1e3}
    assert own_step == plain | step


def test_amounts_of_kernels_that_are_not_square() -> None:
    square, wide = (dict(latency_terms(replace(CONV, kernel_width=w))) for w in (3, 5))
    own, macs = ("conv", "float", "float weights"), 16 * 15 * 3 * 16 / 1e4
    assert wide[(*own, "macs")] == wide[(*own, "large kernel")] == pytest.approx(macs)
    assert (*own, "large kernel") not in square
    pool = dict(latency_terms(Operator("pool", 8, 8, (8, 8), (4, 4), 3, 2, kernel_width=1)))
    assert pool["window pool", "float", "no weights", "taps"] == pytest.approx(8 * 16 * 3 / 1e3)
    assert measures(replace(CONV, kernel_width=5)) != measures(CONV)


def test_amounts_of_a_transposed_convolution_by_hand() -> None:
    own = ("deconv", "float", "integer weights")
    found = dict(latency_terms(Operator("deconv", 8, 16, (4, 4), (8, 8), 2, 2, weight_bits=8, in_bits=8, out_bits=8)))
    assert found[(*own, "macs")] == 8 * 16 * 4 * 16 / 1e4
    assert (found[(*own, "positions")], found[(*own, "strided call")]) == (64 / 1e2, 1.0)
    assert (found["dequantise", "in"], found["quantise", "out"]) == (8 * 16 / 1e3, 16 * 64 / 1e3)


def test_calls_of_different_operations_are_families_of_their_own() -> None:
    call = OPERATORS["call"]
    own = ("call leaky_relu, mul", "float", "no weights")
    assert family(call) == own
    moved = 6 * 64 / 1e3
    assert dict(latency_terms(call)) == {(*own, "call"): 1.0, (*own, "in"): moved, (*own, "out"): moved}
    low = replace(call, in_bits=8, out_bits=8)
    assert family(low) == (own[0], "float<>", "no weights")
    assert family(replace(OPERATORS["call that moves"], in_bits=8, out_bits=8))[:2] == ("call transpose", "integer")
    assert dict(energy_terms(call)) == {
        (own[0], "float", "call"): 1.0, ("moved", "float"): (2 * 4 * 6 * 64 + 4 * 6) / 1e4,
    }  # fmt: skip


def test_new_roles_come_last() -> None:
    """Forests learn from their numbers, and are kept with the tables that they were learnt from."""
    assert ROLES[:5] == ("conv", "pointwise", "depthwise", "vector", "linear")
    assert ROLES[16:] == ("zero", "deconv", "slice", "call")


def test_every_kind_has_terms_and_measures() -> None:
    for operator in [*OPERATORS.values(), *everything(8).operators]:
        assert operator.kind == "identity" or role(operator) in ROLES
        terms = list(latency_terms(operator))
        assert terms[0] == ((*family(operator), "call"), 1.0)
        assert all(amount >= 0 for _, amount in terms)
        assert len(measures(operator)) == len(measures(CONV))
        moved = [amount for term, amount in energy_terms(operator) if term[0] == "moved"]
        assert moved[0] > 0
    assert measures(replace(CONV, dilation=2)) != measures(CONV)
    assert measures(replace(CONV, activation="prelu")) != measures(replace(CONV, activation="relu"))


def test_terms_of_a_whole_space() -> None:
    space = digits_space()
    operators = {o for row in space.sample(np.random.default_rng(0), 60) for o in space.workload_of_row(row).operators}
    assert len(operators) > 300
    for operator in operators:
        found = list(latency_terms(operator))
        assert len({term for term, _ in found}) == len(found), "each term once"
        assert all(amount > 0 for _, amount in found)
        assert found[0] == ((*family(operator), "call"), 1.0)
