"""A forest per kind of operator, on planted costs."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.predictors.features import family
from hwnas.predictors.kernel_forests import KernelForests
from hwnas.spaces import Operator

from .synthetic import digits_space

SIDE = (8, 8)


def cost(operator: Operator) -> float:
    """Integer kernels cost half; nothing but the kind tells."""
    return (0.01 + operator.macs * 1e-6) * (0.5 if operator.integer else 1.0)


def test_it_interpolates_within_each_kind() -> None:
    space = digits_space()
    rows = space.sample(np.random.default_rng(0), 150)
    operators = list(dict.fromkeys(o for row in rows for o in space.workload_of_row(row).operators))
    learnt, unseen = operators[::2], operators[1::2]
    forests = KernelForests.fit({o: cost(o) for o in learnt})
    assert set(forests.forests) == {family(o) for o in learnt}
    errors = np.abs(forests.of_operators(unseen) / [cost(o) for o in unseen] - 1)
    assert np.median(errors) < 0.02
    assert errors.mean() < 0.05


def test_a_kind_never_timed_takes_the_mean_of_all() -> None:
    def conv(bits: int) -> Operator:
        return Operator("conv", 8, 8, SIDE, SIDE, 3, weight_bits=bits, in_bits=bits, out_bits=bits)

    forests = KernelForests.fit({conv(32): 3.0, Operator("pool", 8, 8, SIDE): 1.0})
    assert forests.of_operators([conv(8), conv(32)]) == pytest.approx([2.0, 3.0])
    assert forests.of_operators([]).shape == (0,)
