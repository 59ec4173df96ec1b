"""Asynchronous successive halving (Li et al., "A system for massively parallel hyperparameter tuning", MLSys 2020)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FACTOR = 2
"""η: the best 1/η of those that came as far go on."""


class SuccessiveHalving:
    """Says which candidates to stop early, from all rewards that were seen at the same step.

    It is the form with stopping instead of promotions, as Ray Tune's ``ASHAScheduler`` with one bracket. What it knows
    is the rewards at its rungs alone, so that a resumed search can tell it all learning curves again.

    Where a search has several goals, a candidate goes on that is among the best for any of them: for each, it is
    compared with those that serve it, since a mean over the goals would stop what only one of them needs.

    Args:
        steps: Of a full evaluation. Below three there is nothing to stop.
    """

    def __init__(self, steps: int) -> None:
        first = max(1, steps // 3)
        rungs = (first * FACTOR**k for k in range(steps.bit_length()))
        self.rungs: dict[int, dict[int, NDArray[np.float64]]] = {
            rung: {} for rung in rungs if steps >= 3 and rung < steps
        }
        self._stopped: set[tuple[int, int]] = set()

    def stops(self, number: int, step: int, accuracy: float, factors: NDArray[np.float64]) -> bool:
        """Whether a candidate is hopeless.

        One that begins again, since its worker died, is judged as it was before at the same rung.

        Args:
            number: Of the candidate.
            step: How many it has done.
            accuracy: After that step.
            factors: What accuracy is multiplied by for each goal, shape (goals,); 0 where it does not serve one.
        """
        rung = self.rungs.get(step)
        if rung is None:
            return False
        if number in rung:
            return (number, step) in self._stopped
        own = np.where(factors > 0, accuracy * factors, np.nan)
        known = np.array(list(rung.values())).reshape(-1, len(own))
        rung[number] = own
        if len(known) and not any(map(_hopeful, own, known.T)):
            self._stopped.add((number, step))
        return (number, step) in self._stopped


def _hopeful(reward: float, known: NDArray[np.float64]) -> bool:
    others = known[~np.isnan(known)]
    return not np.isnan(reward) and (not len(others) or bool(reward >= np.percentile(others, 100 * (1 - 1 / FACTOR))))
