"""Devices whose latencies are planted sums over positions and operators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

POSITIONS, OPTIONS = 8, 4


@dataclass(frozen=True)
class Planted:
    """``true_ms`` without noise, shape (n, D); ``features`` one-hot, shape (n, 32)."""

    choices: NDArray[np.int64]
    features: Floats
    true_ms: Floats

    def measured(self, noise: float, seed: int = 0, hiccups: float = 0.0) -> Floats:
        """With noise, and a share of hiccups of five times the latency."""
        rng = np.random.default_rng(seed)
        factors = np.exp(noise * rng.normal(size=self.true_ms.shape))
        return np.asarray(self.true_ms * np.where(rng.random(factors.shape) < hiccups, 5.0, factors))


def planted_devices(n: int = 1500, devices: int = 6, seed: int = 0) -> Planted:
    """Each device mixes three ways in which networks can be slow, and adds a constant."""
    rng = np.random.default_rng(seed)
    choices = rng.integers(0, OPTIONS, size=(n, POSITIONS))
    features = (choices[:, :, None] == np.arange(OPTIONS)).reshape(n, -1).astype(np.float64)
    ways = rng.uniform(0.1, 2.0, size=(POSITIONS * OPTIONS, 3))
    mix = rng.dirichlet(2 * np.ones(3), size=devices).T
    true_ms = (features @ ways @ mix + rng.uniform(0.5, 3.0, devices)) * rng.uniform(0.3, 30.0, devices)
    return Planted(choices, features, true_ms)
