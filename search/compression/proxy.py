"""Judges candidates by what their single changes do, and learns from those that were trained how much of it remains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.search.compression.sensitivity import Sensitivity, parts, table
from hwnas.spaces.space import Rows, Space

Floats = NDArray[np.float64]
PRIOR: Mapping[str, float] = {
    "present": 0.01, "keep": 0.01, "rank": 0.01, "density": 0.01, "weight_bits": 0.03, "act_bits": 0.03,
    "shared": 0.03,
}  # fmt: skip
"""Accuracy that a unit of damage of each kind costs after fine-tuning, before any candidate was trained: training makes
good most of what is removed, and less of what is rounded."""
DOUBT = 0.7
"""Standard deviation of these, as a share."""
OFFSET_STD = 0.01
"""Of the accuracy that fine-tuning gives the whole model, around what it has."""
NOISE_STD = 0.004
"""Of the accuracy of a trained candidate, around the sum."""


@dataclass(frozen=True)
class Weights:
    """What is believed of the sum: an offset, and a weight per kind; jointly normal.

    Attributes:
        mean: Shape (1 + kinds,).
        covariance: Shape (1 + kinds, 1 + kinds).
    """

    mean: Floats
    covariance: Floats


class AdditiveProxy:
    """Accuracy = what the whole model has − Σ over kinds of decisions of weight × damage.

    The damage of a candidate is the sum of log(1 + KL) of its single changes, by kind of decision: KL adds up for small
    changes, and what a large one destroys is mostly made good by training, whence the logarithm. Weights are those of a
    Bayesian linear regression on the candidates that were trained, from `PRIOR` on.

    Args:
        space: Of the model.
        sensitivity: What single changes do.
        accuracy: Of the whole model on the images that validate.
    """

    def __init__(self, space: Space, sensitivity: Sensitivity, accuracy: float) -> None:
        self.space = space
        self.kinds = tuple(dict.fromkeys(part.kind for part in parts(space)))
        self._parts = []
        for part in parts(space):
            columns = [space.column(name) for name in part.decisions]
            damage = np.log1p(np.minimum(table(part, sensitivity.effects), 50.0)).reshape(tuple(map(len, part.options)))
            self._parts.append((self.kinds.index(part.kind), columns, damage))
        prior = np.array([accuracy, *(PRIOR[kind] for kind in self.kinds)])
        stds = np.array([OFFSET_STD, *(DOUBT * PRIOR[kind] for kind in self.kinds)])
        self.prior = Weights(prior, np.diag(stds**2))

    def damage(self, rows: Rows) -> Floats:
        """By kind, of rows (n, decisions), shape (n, kinds)."""
        rows = np.atleast_2d(rows)
        active = self.space.active(rows)
        result = np.zeros((len(rows), len(self.kinds)))
        for kind, columns, damage in self._parts:
            own = damage[tuple(rows[:, c] for c in columns)]
            result[:, kind] += own * active[:, columns[0]]
        return result

    def fitted(self, rows: Rows, accuracy: Floats) -> Weights:
        """What is believed after trained candidates (n, decisions) with accuracies (n,); NaNs are left out."""
        there = np.isfinite(accuracy)
        if not there.any():
            return self.prior
        x = self._terms(rows[there])
        precision = np.linalg.inv(self.prior.covariance)
        covariance = np.linalg.inv(precision + x.T @ x / NOISE_STD**2)
        mean: Floats = covariance @ (precision @ self.prior.mean + x.T @ accuracy[there] / NOISE_STD**2)
        return Weights(mean, np.asarray(covariance, dtype=np.float64))

    def accuracy(self, rows: Rows, weights: Weights | None = None) -> Floats:
        """Of rows (n, decisions), as shares, shape (n,); damage never helps, whatever the weights say."""
        mean = (weights or self.prior).mean
        believed = np.concatenate([mean[:1], np.maximum(mean[1:], 0.0)])
        return np.asarray(np.clip(self._terms(rows) @ believed, 0.0, 1.0))

    def drawn(self, weights: Weights, rng: np.random.Generator) -> Weights:
        """Weights drawn from what is believed, for Thompson sampling."""
        mean = rng.multivariate_normal(weights.mean, weights.covariance, method="cholesky")
        return Weights(np.asarray(mean, dtype=np.float64), weights.covariance)

    def _terms(self, rows: Rows) -> Floats:
        damage = self.damage(rows)
        return np.concatenate([np.ones((len(damage), 1)), -damage], axis=1)
