"""Costs as lines through a few amounts, by the relative error: least squares, or a fit that forgives outliers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Floats = NDArray[np.float64]

ROUNDS = 15
CAUCHY = 1.5
"""Relative errors of so many times the median count half."""
LEAST_ERROR = 1e-3


@dataclass(frozen=True, slots=True)
class LinearModel:
    """A constant, and a coefficient per amount.

    Attributes:
        constant: What every network costs.
        coefficients: Shape (a,).
    """

    constant: float
    coefficients: Floats

    @classmethod
    def fit(cls, amounts: Floats, measured: Floats) -> LinearModel:
        """Learns from amounts of shape (n, a) and costs of shape (n,), which are positive.

        Where fewer networks than amounts were measured, the least coefficients are taken that fit them.
        """
        return cls._solved(_least_squares, amounts, measured)

    @classmethod
    def fit_robust(cls, amounts: Floats, measured: Floats) -> LinearModel:
        """The same by iterated reweighting, with Cauchy's weights of the relative error; nothing is negative."""
        return cls._solved(_reweighted, amounts, measured)

    @classmethod
    def _solved(cls, solve: Callable[[Floats], Floats], amounts: Floats, measured: Floats) -> LinearModel:
        scale = np.abs(amounts).max(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        theta = solve(np.column_stack([amounts / scale, np.ones(len(measured))]) / measured[:, None])
        return cls(float(theta[-1]), np.asarray(theta[:-1] / scale))

    def predict(self, amounts: Floats) -> Floats:
        """Costs of networks, shape (n,)."""
        return np.asarray(amounts @ self.coefficients + self.constant)


def _least_squares(design: Floats) -> Floats:
    """Brings each row to 1, each row's error of the same weight."""
    return np.asarray(np.linalg.lstsq(design, np.ones(len(design)), rcond=None)[0])


def _reweighted(design: Floats) -> Floats:
    """Brings each row to 1 with nothing negative; rows far from it have less weight."""
    weight = np.ones(len(design))
    for _ in range(ROUNDS):
        theta = nnls(design * weight[:, None], weight, maxiter=30 * design.shape[1])[0]
        error = np.abs(design @ theta - 1)
        weight = 1 / np.sqrt(1 + (error / (CAUCHY * np.median(error) + LEAST_ERROR)) ** 2)
    return np.asarray(theta)
