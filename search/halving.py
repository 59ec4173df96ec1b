"""Asynchronous successive halving (Li et al., "A system for massively parallel hyperparameter tuning", MLSys 2020)."""

from __future__ import annotations

import numpy as np

FACTOR = 2
"""η: the best 1/η of those that came as far go on."""


class SuccessiveHalving:
    """Says which candidates to stop early, from all rewards that were seen at the same step.

    It is the form with stopping instead of promotions, as Ray Tune's ``ASHAScheduler`` with one bracket. What it knows
    is the rewards at its rungs alone, so that a resumed search can tell it all learning curves again.

    Args:
        steps: Of a full evaluation. Below three there is nothing to stop.
    """

    def __init__(self, steps: int) -> None:
        first = max(1, steps // 3)
        rungs = (first * FACTOR**k for k in range(steps.bit_length()))
        self.rungs: dict[int, dict[int, float]] = {rung: {} for rung in rungs if steps >= 3 and rung < steps}

    def stops(self, number: int, step: int, reward: float) -> bool:
        """Whether the candidate of that number, which has that reward after that step, is hopeless.

        One that begins again, since its worker died, is not judged twice at the same rung.
        """
        rewards = self.rungs.get(step)
        if rewards is None or number in rewards:
            return False
        hopeless = bool(rewards) and reward < np.percentile(list(rewards.values()), 100 * (1 - 1 / FACTOR))
        rewards[number] = reward
        return hopeless
