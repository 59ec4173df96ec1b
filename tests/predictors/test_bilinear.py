"""The bilinear model of energy on networks whose energy is planted."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from hwnas.predictors.bilinear import BilinearModel, product_of_widths
from hwnas.spaces import Operator

COSTS = (3e-3, 0.0, 5e-4)


def chain(widths: list[int]) -> dict[str, Operator]:
    """Convolutions of 3×3 one after the other."""
    return {f"layer {i}": Operator("conv", a, b, (8, 8), (8, 8), 3)
            for i, (a, b) in enumerate(pairwise(widths))}  # fmt: skip


def planted_mj(widths: list[int]) -> float:
    return 2.0 + sum(c * a * b for c, a, b in zip(COSTS, widths[:-1], widths[1:], strict=True))


def draws(n: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[3, *rng.integers(4, 65, 2).tolist(), 10] for _ in range(n)]


def test_planted_energies_are_recovered_exactly() -> None:
    model = BilinearModel.fit([chain(w) for w in draws(40, 0)], [planted_mj(w) for w in draws(40, 0)])
    new = draws(20, 1)
    assert model.of_networks([chain(w) for w in new]) == pytest.approx([planted_mj(w) for w in new], rel=1e-9)
    assert model.line.coefficients == pytest.approx(np.array(COSTS), abs=1e-12)


def test_macs_of_a_chain_are_bilinear() -> None:
    """Its widths decide them alone: as energy they are met to rounding."""
    macs = [sum(o.macs for o in chain(w).values()) for w in draws(60, 2)]
    model = BilinearModel.fit([chain(w) for w in draws(60, 2)][:40], macs[:40])
    assert model.of_networks([chain(w) for w in draws(60, 2)][40:]) == pytest.approx(macs[40:], rel=1e-6)


def test_products_count_what_is_there() -> None:
    assert product_of_widths(Operator("conv", 16, 32, (8, 8), (8, 8), 5)) == 512
    assert product_of_widths(Operator("conv", 16, 32, (8, 8), (8, 8), 5, density=0.25)) == 128
    assert product_of_widths(Operator("conv", 16, 16, (8, 8), (8, 8), 3, groups=16)) == 16
    assert product_of_widths(Operator("conv", 16, 32, (8, 8), (8, 8), 3, dilation=2, density=0.5, pattern=4)) == 256
    assert product_of_widths(Operator("conv", 16, 32, (8, 8), (8, 8), 1, kernel_width=7)) == 512
    assert product_of_widths(Operator("deconv", 16, 32, (8, 8), (16, 16), 4, 2, groups=2)) == 256
    assert product_of_widths(Operator("linear", 16, 10)) == 160
    assert product_of_widths(Operator("concat", 32, 32, (8, 8), (8, 8))) == 0
    assert product_of_widths(Operator("pool", 16, 16, (8, 8))) == 0


def test_a_layer_that_a_network_lacks_counts_nothing() -> None:
    with_and_without = [chain([8, w, 8]) | ({"more": Operator("conv", w, w)} if w % 2 else {}) for w in range(4, 24)]
    mj = [1 + 0.01 * 16 * w + (0.02 * w * w if w % 2 else 0.0) for w in range(4, 24)]
    model = BilinearModel.fit(with_and_without, mj)
    assert model.of_networks([chain([8, 50, 8])]) == pytest.approx([1 + 0.01 * 16 * 50])
    assert model.of_networks([chain([8, 50, 8]) | {"elsewhere": Operator("conv", 9, 9)}]) == pytest.approx([9.0])
