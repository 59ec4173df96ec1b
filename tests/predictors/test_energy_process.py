"""Energy as a robust sum and a Gaussian process, where it is planted."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.predictors.energy_process import EnergyProcess
from hwnas.spaces.errors import UnavailableError

from .planted_devices import planted_devices

N, MEASURED = 600, 100
CHOICES = planted_devices(N, 1)
COSTS = np.array([0.0, 1.0, 3.0, 0.5])


def counts() -> np.ndarray:
    return CHOICES.features.reshape(N, -1, 4).sum(axis=1)


def median_error(predicted: np.ndarray, true: np.ndarray) -> float:
    return float(np.median(np.abs(predicted / true - 1)[MEASURED:]))


def test_the_process_learns_what_the_sum_misses() -> None:
    """Positions cost differently, which the sum over operators cannot say."""
    parts = counts()
    factors = np.random.default_rng(0).normal(0.0, 0.1, CHOICES.features.shape[1])
    true = (2 + parts @ COSTS) * np.exp(CHOICES.features @ factors)
    found = EnergyProcess.fit(parts[:MEASURED], CHOICES.features[:MEASURED], true[:MEASURED])
    alone = median_error(found.total.predict(parts), true)
    assert alone > 0.05
    assert median_error(found.predict(parts, CHOICES.features), true) < alone / 2


def test_what_is_far_from_the_sum_is_said_of_equal_networks_alone() -> None:
    features = CHOICES.features
    parts, true = counts(), 2 + counts() @ COSTS
    measured = true.copy()
    measured[5] *= 9.0
    again, parts_again = np.vstack([features, features[5]]), np.vstack([parts, parts[5]])
    found = EnergyProcess.fit(parts[:MEASURED], features[:MEASURED], measured[:MEASURED])
    predicted = found.predict(parts_again, again)
    assert predicted[-1] == pytest.approx(9 * true[5], rel=1e-6)
    others = ~(features == features[5]).all(axis=1)
    assert predicted[:N][others] == pytest.approx(true[others], rel=0.02)


def test_too_few_networks_are_refused() -> None:
    with pytest.raises(UnavailableError, match="energy of at least 10 networks is needed, not of 9"):
        EnergyProcess.fit(counts()[:9], CHOICES.features[:9], np.ones(9))
