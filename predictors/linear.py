"""Costs as lines through a few amounts, by least squares of the relative error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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
        scale = np.abs(amounts).max(axis=0)
        design = np.column_stack([amounts / np.where(scale > 0, scale, 1.0), np.ones(len(measured))])
        theta = np.linalg.lstsq(design / measured[:, None], np.ones(len(measured)), rcond=None)[0]
        return cls(float(theta[-1]), np.asarray(theta[:-1] / np.where(scale > 0, scale, 1.0)))

    def predict(self, amounts: Floats) -> Floats:
        """Costs of networks, shape (n,)."""
        return np.asarray(amounts @ self.coefficients + self.constant)
