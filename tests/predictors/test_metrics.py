"""Prediction errors against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.predictors.metrics import prediction_error


def test_by_hand() -> None:
    error = prediction_error(np.array([1.5, 1.9, 3.0, 4.2]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert error.mape == pytest.approx((0.5 + 0.05 + 0 + 0.05) / 4)
    assert error.within_10_percent == 0.75
    assert error.kendall_tau == 1.0
    assert error.count == 4


def test_percentages_are_of_the_measurement() -> None:
    assert prediction_error(np.array([2.0, 2.0]), np.array([1.0, 4.0])).mape == pytest.approx((1 + 0.5) / 2)


@pytest.mark.parametrize(
    ("predicted", "tau"),
    [
        ([4.0, 3.0, 2.0, 1.0], -1.0),
        ([1.0, 2.0, 4.0, 3.0], (5 - 1) / 6),
        ([1.0, 1.0, 2.0, 3.0], 5 / np.sqrt(5 * 6)),  # tau-b: a tie counts in one margin only
    ],
)
def test_rank_correlation(predicted: list[float], tau: float) -> None:
    assert prediction_error(np.array(predicted), np.array([1.0, 2.0, 3.0, 4.0])).kendall_tau == pytest.approx(tau)


def test_scale_does_not_change_the_ranking() -> None:
    rng = np.random.default_rng(0)
    measured = rng.random(50) + 0.1
    first, second = (prediction_error(f * measured, measured) for f in (1.0, 1.3))
    assert (first.kendall_tau, second.kendall_tau) == (1.0, 1.0)
    assert (first.mape, second.mape) == pytest.approx((0.0, 0.3))
    assert (first.within_10_percent, second.within_10_percent) == (1.0, 0.0)


def test_in_words() -> None:
    error = prediction_error(np.array([1.5, 1.9, 3.0, 4.2]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert str(error) == "MAPE 15.0%, Kendall tau 1.000, 75% within ±10 % (4 networks)"
