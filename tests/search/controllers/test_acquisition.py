"""Expected gains: against simulation, and where simulation sees nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from hwnas.search.controllers.acquisition import log_expected_gain, log_h


def test_the_gain_is_that_of_simulated_accuracies() -> None:
    rng = np.random.default_rng(0)
    mean, std = rng.random(4), 0.1 + rng.random(4)
    weights, levels = rng.random((4, 3)), rng.random((4, 3))
    levels[1, 2] = np.inf  # a goal that this one cannot serve
    draws = mean[:, None] + std[:, None] * rng.normal(size=(4, 400_000))
    simulated = [
        (weights[i][:, None] * np.maximum(0, draws[i] - levels[i][:, None])).sum(axis=0).mean() for i in range(4)
    ]
    assert np.exp(log_expected_gain(mean, std, weights, levels)) == pytest.approx(simulated, rel=0.02)


def test_nothing_to_gain_is_minus_infinity() -> None:
    gains = log_expected_gain(np.array([0.5, 0.5]), np.ones(2), np.zeros((2, 2)), np.array([[0.1, 0.2], [np.inf] * 2]))
    assert gains.tolist() == [-np.inf, -np.inf]


@pytest.mark.parametrize("z", [-0.5, 0.0, 3.0, -0.999, -1.001, -3.0, -8.0])
def test_h_is_the_integral_of_the_normal_distribution(z: float) -> None:
    # h(z) = ∫ (z − t)⁺ φ(t) dt
    whole, _ = quad(lambda t: (z - t) * np.exp(-t * t / 2) / np.sqrt(2 * np.pi), z - 12, z, epsabs=0, epsrel=1e-12)
    assert log_h(np.array([z]))[0] == pytest.approx(np.log(whole), abs=1e-7)


def test_h_keeps_its_order_where_it_is_zero_in_floating_point() -> None:
    z = -np.geomspace(1.0, 1e6, 2000)
    values = log_h(z)
    assert np.isfinite(values).all()
    assert (np.diff(values) < 0).all()
    # By its series: φ(z) / z² · (1 − 3 / z² + …).
    far = z < -100
    assert values[far] == pytest.approx(-0.5 * z[far] ** 2 - 0.5 * np.log(2 * np.pi) - 2 * np.log(-z[far]), rel=1e-6)
