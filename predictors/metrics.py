"""How good a prediction is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class PredictionError:
    """Errors of a prediction of positive figures.

    Attributes:
        mape: Mean absolute percentage error, as a share.
        kendall_tau: Rank correlation (tau-b).
        within_10_percent: Share of predictions within ±10 % of the measurement.
        count: Figures compared.
    """

    mape: float
    kendall_tau: float
    within_10_percent: float
    count: int

    def __str__(self) -> str:
        return (
            f"MAPE {self.mape:.1%}, Kendall tau {self.kendall_tau:.3f}, "
            f"{self.within_10_percent:.0%} within ±10 % ({self.count} networks)"
        )


def prediction_error(predicted: Floats, measured: Floats) -> PredictionError:
    """Compares predictions with measurements, both of shape (n,), n ≥ 2, measurements positive."""
    from scipy.stats import kendalltau  # slow to import, and most processes compare nothing

    relative = np.abs(predicted / measured - 1)
    return PredictionError(
        mape=float(relative.mean()),
        kendall_tau=float(kendalltau(predicted, measured).statistic),
        within_10_percent=float((relative <= 0.1).mean()),
        count=len(measured),
    )
