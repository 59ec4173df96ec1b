"""Latencies of a whole space on a new device, from a handful of measurements and the tables of known devices.

With f_d the latencies of all networks on known device d divided by their mean, and m the mean over devices, the new
device's latencies are

    y = c (f₀ + g) (1 + e),   g ~ GP(0, s [κ² (1 + m mᵀ) + Σ_d (f_d − m)(f_d − m)ᵀ λ² / D])

so g varies as the known devices do: with their empirical covariance. The centre f₀ is m or one of the f_d (a new device
is often much like one known), s and the size of the noise e are unknown too. All combinations of centre, s and noise
are fitted, and averaged by their evidence; nothing is tuned on the new device beyond its measurements, and the prior of
the noise is what the known devices' tables show. c is the median ratio of measurement to centre.

The mean is a linear combination of the known devices' latencies and a constant. So where theirs are sums over operators
(`hwnas.predictors.additive`), the new device's is one too.

The protocol is that of HELP (Lee et al., NeurIPS 2021, arXiv 2106.08630): a handful of networks, others' tables known.
HELP meta-learns a network's weights with a device embedding; here, there is a Gaussian process whose prior is the
devices themselves, known tables are freed of noise (`hwnas.predictors.smoothing`), noise is heavy-tailed
(`hwnas.predictors.mixture`), and the networks to measure are chosen, not drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.predictors.mixture import NOISE_INFLATION, posteriors
from hwnas.predictors.smoothing import KnownTables
from hwnas.spaces.errors import UnavailableError

Floats = NDArray[np.float64]
Indexes = NDArray[np.int64]

LOG_SCALES = (-4.0, -2.0, 0.0, 1.5)
"""How far from its centre a device may be: logarithm of s."""
LOG_SCALE_STD = 3.0
LOG_NOISES = tuple(np.linspace(-11.0, -1.5, 8))
LEAST_LOG_NOISE_STD = 0.7
CENTRED_ON_MEAN = 0.2
"""Prior probability that f₀ is m; the known devices share the rest."""
CONSTANT, SPREAD = 1e-3, 1.1
"""κ² and λ."""
SMALL = 0.1
"""Share of the mean latency to which absolute errors count, beside relative ones."""
MIN_MEASURED = 3
MODELS = 30
"""The most likely models, of which alone the error is computed."""


@dataclass(frozen=True, slots=True)
class Transferred:
    """What is known of the new device.

    Attributes:
        latency_ms: Of every network, shape (n,).
        latency_ms_std: Standard deviation of what measuring a network would give, shape (n,).
        weights: Of each known device's latency in the prediction, shape (D,).
        constant_ms: What is added to the weighted sum.
    """

    latency_ms: Floats
    latency_ms_std: Floats
    weights: Floats
    constant_ms: float


class Transfer:
    """Predicts new devices from known ones on the same n networks.

    Args:
        known: Latencies of n networks on D devices: milliseconds of shape (n, D), or as already smoothed.
        features: Of the architectures, to free the tables of noise, shape (n, f); not with smoothed tables.

    Raises:
        UnavailableError: The tables hold no device, fewer than two networks, or latencies that are not positive.
    """

    def __init__(self, known: Floats | KnownTables, features: Floats | None = None) -> None:
        if not isinstance(known, KnownTables):
            known = np.asarray(known, dtype=np.float64)
            if known.ndim != 2 or len(known) < 2 or not known.shape[1]:
                raise UnavailableError("transfer needs the latencies of at least two networks on one known device")
            if not (np.isfinite(known).all() and (known > 0).all()):
                raise UnavailableError("the known devices' latencies must be positive numbers")
            known = KnownTables.of(known, features)
        self.known = known
        shape = known.shape
        self._mean = shape.mean(axis=1)
        self._centres = np.column_stack([self._mean, shape])
        share = (1 - CENTRED_ON_MEAN) / shape.shape[1]
        self._log_prior = np.log([CENTRED_ON_MEAN, *[share] * shape.shape[1]])
        deviations = (shape - self._mean[:, None]) * SPREAD / np.sqrt(shape.shape[1])
        basis = np.sqrt(CONSTANT) * np.column_stack([np.ones(len(shape)), self._mean])
        self._basis = np.column_stack([basis, deviations])
        self._size = self._mean**2 + SMALL**2
        middle, spread = known.log_noise.mean(), max(float(known.log_noise.std()), LEAST_LOG_NOISE_STD)
        self._usual_noise = float(np.exp(middle))
        scales, noises = np.meshgrid(LOG_SCALES, LOG_NOISES)
        self._scales, self._noises = np.exp(scales.ravel()), np.exp(noises.ravel())
        log_prior = -0.5 * (((noises - middle) / spread) ** 2 + (scales / LOG_SCALE_STD) ** 2)
        self._grid_log_prior = log_prior.ravel()

    def fit(
        self,
        indexes: Sequence[int] | Indexes,
        measured_ms: Sequence[float] | Floats,
        planned: Sequence[int] | Indexes = (),
    ) -> Transferred:
        """Predicts all networks from some that the new device measured.

        Args:
            indexes: Rows of the known tables, shape (k,).
            measured_ms: What was measured of them, shape (k,).
            planned: Rows to be measured, too: the standard deviation is the one to be expected then, without what
                measuring them would tell of noise and of which model is right.

        Raises:
            UnavailableError: Fewer than three measurements, or some that are not positive.
        """
        index, y = np.asarray(indexes, dtype=np.int64), np.asarray(measured_ms, dtype=np.float64)
        if len(index) < MIN_MEASURED or len(index) != len(y) or not (np.isfinite(y).all() and (y > 0).all()):
            raise UnavailableError(f"transfer needs at least {MIN_MEASURED} networks, each with a positive latency")
        basis, centres = self._basis[index], self._centres[index]
        level = np.median(y[:, None] / np.maximum(centres, SMALL), axis=0)
        kernels = self._scales[:, None, None] * (basis @ basis.T)
        noise = self._noises[:, None] * self._size[index]
        found = posteriors(kernels, noise, (y[:, None] / level - centres).T)
        log_posterior = found.log_evidence + self._grid_log_prior[:, None] + self._log_prior - len(y) * np.log(level)
        posterior = np.exp(log_posterior - log_posterior.max())
        posterior /= posterior.sum()
        shares = posterior * level
        on_basis = basis.T @ np.einsum("gk,g,gkn->n", shares, self._scales, found.weights)
        on_centres = shares.sum(axis=0)
        mean = self._centres @ on_centres + self._basis @ on_basis
        variance = np.zeros(len(mean))
        top = np.argsort(-posterior, axis=None)[:MODELS]
        cross = self._basis @ basis.T
        own = (self._basis**2).sum(axis=1)
        later = np.asarray(planned, dtype=np.int64)
        for model, centre in zip(*np.unravel_index(top, posterior.shape), strict=True):
            to_measured = self._scales[model] * cross
            explained = to_measured @ found.inverse[model, centre]
            of_function = self._scales[model] * own - (explained * to_measured).sum(axis=1)
            if len(later):
                between = self._scales[model] * (self._basis @ self._basis[later].T) - explained @ to_measured[later].T
                inside = between[later] + np.diag(self._noises[model] * self._size[later])
                of_function -= (np.linalg.solve(inside, between.T).T * between).sum(axis=1)
            of_noise = NOISE_INFLATION * self._noises[model] * self._size
            here = level[centre] * (self._centres[:, centre] + to_measured @ found.weights[model, centre])
            spread = level[centre] ** 2 * (of_function.clip(0) + of_noise) + (here - mean) ** 2
            variance += posterior[model, centre] / posterior.flat[top].sum() * spread
        weights, constant = self._combination(on_centres, on_basis)
        return Transferred(mean, np.sqrt(variance), weights, constant)

    def _combination(self, on_centres: Floats, on_basis: Floats) -> tuple[Floats, float]:
        """Weights of the known devices' milliseconds, and the constant, that give the mean."""
        devices = len(self.known.mean_ms)
        deviations = on_basis[2:] * SPREAD / np.sqrt(devices)
        of_mean = on_centres[0] + np.sqrt(CONSTANT) * on_basis[1] - deviations.sum()
        weights = (of_mean / devices + on_centres[1:] + deviations) / self.known.mean_ms
        return np.asarray(weights), float(np.sqrt(CONSTANT) * on_basis[0])

    def next_networks(
        self,
        k: int,
        measured: Sequence[int] | Indexes = (),
        among: Sequence[int] | Indexes | None = None,
    ) -> Indexes:
        """The networks to measure next, the most informative first. Shape (at most k,).

        Each is the one whose relative latency is least certain given those measured and chosen before (D-optimal design
        by sequential choice of the largest variance; Wynn, Annals of Mathematical Statistics 1970). What they measure
        does not matter for that, only which they are.

        Args:
            k: How many.
            measured: Rows measured already.
            among: Rows to choose from; all by default.
        """
        pool = np.arange(len(self._mean)) if among is None else np.unique(np.asarray(among, dtype=np.int64))
        pool = np.setdiff1d(pool, np.asarray(measured, dtype=np.int64))
        relative = self._basis / np.sqrt(self._size)[:, None]
        covariance = np.eye(relative.shape[1])
        for index in np.asarray(measured, dtype=np.int64):
            covariance = _observe(covariance, relative[index], self._usual_noise)
        chosen: list[int] = []
        points = relative[pool]
        for _ in range(min(k, len(pool))):
            variance = ((points @ covariance) * points).sum(axis=1)
            variance[np.isin(pool, chosen)] = -1.0
            best = int(pool[variance.argmax()])
            chosen.append(best)
            covariance = _observe(covariance, relative[best], self._usual_noise)
        return np.array(chosen, dtype=np.int64)


def _observe(covariance: Floats, point: Floats, noise: float) -> Floats:
    """The covariance of the basis' coefficients after measuring one network."""
    along = covariance @ point
    return np.asarray(covariance - np.outer(along, along) / (point @ along + noise))
