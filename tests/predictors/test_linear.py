"""Lines through amounts."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.predictors.linear import LinearModel

RNG = np.random.default_rng(0)


def test_planted_coefficients_are_found_whatever_the_unit() -> None:
    amounts = RNG.uniform(size=(30, 3)) * [1e9, 1.0, 1e-6]
    model = LinearModel.fit(amounts, 2 + amounts @ [3e-9, 5.0, 7e6])
    assert model.constant == pytest.approx(2)
    assert model.coefficients == pytest.approx(np.array([3e-9, 5.0, 7e6]))
    assert model.predict(np.array([[1e9, 1.0, 1e-6]])) == pytest.approx(17.0)


def test_it_is_the_relative_error_that_is_least() -> None:
    """A constant c for 1, 1 and 4: (c − 1)² × 2 + (c/4 − 1)² is least at c = 36 / 33."""
    assert LinearModel.fit(np.zeros((3, 1)), np.array([1.0, 1.0, 4.0])).constant == pytest.approx(36 / 33)


def test_a_robust_line_is_found_in_spite_of_outliers() -> None:
    amounts = RNG.uniform(size=(100, 3)) * [1e9, 1.0, 1e-6]
    true = 2 + amounts @ [3e-9, 5.0, 7e6]
    measured = true.copy()
    measured[::8] *= 6.0
    assert LinearModel.fit_robust(amounts, measured).predict(amounts) == pytest.approx(true, rel=1e-3)
    squares = LinearModel.fit(amounts, measured).predict(amounts)
    assert np.median(np.abs(squares / true - 1)) > 0.015


def test_nothing_in_a_robust_line_is_negative() -> None:
    amounts = np.column_stack([np.arange(20.0), np.zeros(20)])
    falling = 10 - 0.4 * np.arange(20.0)
    found = LinearModel.fit_robust(amounts, falling)
    assert found.coefficients.tolist() == [0.0, 0.0]
    assert found.constant > 0
    assert LinearModel.fit(amounts, falling).coefficients == pytest.approx(np.array([-0.4, 0.0]))
