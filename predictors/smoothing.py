"""Takes the noise out of the latency tables of known devices, by what the architectures have in common.

A table measured once per network holds hiccups of up to ten times a network's latency. Nearly all of what a device
really does with the networks of one space is a sum over their parts, which thousands of rows pin down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RIDGE = 1e-6
ROUNDS = 2
SMALL = 0.2
"""Networks faster than this share of the mean are weighted as if they took as long: they are mostly noise."""
FLOOR_QUANTILE = 0.005
"""Smoothed latencies stay above this quantile of the table: a sum over parts can go below zero."""
LEAST = 0.02
UNKNOWN_LOG_NOISE = -6.0
"""Of a table without architectures and without others to compare: about 5 %."""


@dataclass(frozen=True, slots=True)
class KnownTables:
    """Latencies of the same n networks on D known devices.

    Attributes:
        shape: Smoothed latencies, each device's divided by its mean, shape (n, D).
        mean_ms: Those means, shape (D,).
        log_noise: Logarithm of the variance of each device's relative error, shape (D,).
    """

    shape: Floats
    mean_ms: Floats
    log_noise: Floats

    @classmethod
    def of(cls, latency_ms: Floats, features: Floats | None = None) -> KnownTables:
        """Smooths tables.

        Each device's latencies y are regressed on the features X by least squares of the relative error,
        min Σ w (y − Xθ)² with w = 1/ŷ², networks beyond three robust standard deviations weighted down as in Huber's
        estimator (Annals of Mathematical Statistics, 1964), squared. Without features the tables are taken as they are.

        Args:
            latency_ms: Measured, positive, shape (n, D).
            features: Of the architectures, such as one column per position and operator, shape (n, f).
        """
        mean = latency_ms.mean(axis=0)
        relative = latency_ms / mean
        least = np.maximum(0.9 * np.quantile(relative, FLOOR_QUANTILE, axis=0), LEAST)
        if features is None:
            shape = np.maximum(relative, least)
            log_noise = np.array([_disagreement(shape, device) for device in range(shape.shape[1])])
        else:
            design = np.column_stack([features, np.ones(len(features))])
            fits = [_additive(design, y) for y in relative.T]
            shape = np.maximum(np.column_stack(fits), least)
            log_noise = np.array([_log_variance(r) for r in (relative / shape - 1).T])
        level = shape.mean(axis=0)
        return cls(shape / level, mean * level, log_noise)

    def select(self, devices: Sequence[int]) -> KnownTables:
        """Those of some devices only."""
        chosen = list(devices)
        return KnownTables(self.shape[:, chosen], self.mean_ms[chosen], self.log_noise[chosen])


def _additive(design: Floats, y: Floats) -> Floats:
    """The robust relative least-squares fit to one device's relative latencies, shape (n,)."""
    penalty = RIDGE * len(y) * np.eye(design.shape[1])
    weights = 1 / np.maximum(y, SMALL) ** 2
    fitted = y
    for _ in range(ROUNDS):
        weighted = design * weights[:, None]
        fitted = design @ np.linalg.solve(weighted.T @ design + penalty, weighted.T @ y)
        residual = (y - fitted) / np.maximum(fitted, LEAST)
        spread = 1.4826 * np.median(np.abs(residual)) + 1e-9
        weights = 1 / np.maximum(fitted, SMALL / 2) ** 2 / np.maximum(1, np.abs(residual) / (3 * spread)) ** 2
    return np.asarray(fitted)


def _disagreement(shape: Floats, device: int) -> float:
    """Logarithm of the variance of what the other devices' tables do not explain."""
    if shape.shape[1] < 2 or len(shape) <= shape.shape[1]:
        return UNKNOWN_LOG_NOISE
    others = np.column_stack([np.delete(shape, device, axis=1), np.ones(len(shape))])
    own = shape[:, device]
    return _log_variance(own / np.maximum(others @ np.linalg.lstsq(others, own, rcond=None)[0], LEAST) - 1)


def _log_variance(residual: Floats) -> float:
    """By the quartiles, so that hiccups do not count; at least 0.4 %."""
    low, high = np.quantile(residual, [0.25, 0.75])
    return float(2 * np.log((high - low) / 1.349 + 0.004))
