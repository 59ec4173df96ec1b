"""What a state tells of the goal that is pursued, since one agent serves them all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwnas.search.controllers.ddpg.layer_states import Vectors
from hwnas.search.goal import Floats
from hwnas.search.objective import Objective

RANGE = 2.0
"""Logarithms of shares of a budget are cut off there."""


class GoalStates:
    """Two numbers and more: the share of the tightest bound that the choices so far will take, and which goal it is.

    Args:
        objective: Whose goals.

    Attributes:
        metrics: Names of all costs that have a bound or a target.
        width: Of what is added to a state.
    """

    def __init__(self, objective: Objective) -> None:
        goals = objective.goals
        constraints = [name for goal in goals for name in goal.constraints]
        self.metrics = tuple(dict.fromkeys([*(goal.metric for goal in goals), *constraints]))
        bounds = np.full((len(goals), len(self.metrics)), np.inf)
        for i, goal in enumerate(goals):
            for name, bound in goal.bounds.items():
                bounds[i, self.metrics.index(name)] = bound
        self._log_bounds = np.log(bounds)
        of = np.array([self.metrics.index(goal.metric) for goal in goals])
        codes = np.zeros((len(goals), 1 + len(self.metrics)))
        codes[np.arange(len(goals)), 1 + of] = 1
        for metric in range(len(self.metrics)):
            targets = np.log([goal.target for goal in goals])[of == metric]
            if len(targets) and np.ptp(targets) > 0:
                codes[of == metric, 0] = (targets - targets.min()) / np.ptp(targets)
        self._codes = codes
        self.width = 1 + codes.shape[1]

    def extend(self, states: Vectors, forecasts: Floats, goals: NDArray[np.intp]) -> Vectors:
        """States (n, …) with the goals' part behind.

        Args:
            states: See `hwnas.search.controllers.ddpg.layer_states.LayerStates`.
            forecasts: Expected logarithms of the metrics, shape (n, metrics).
            goals: Index of each state's goal, shape (n,).
        """
        share = (forecasts - self._log_bounds[goals]).max(axis=1, keepdims=True)
        return np.concatenate([states, np.clip(share, -RANGE, RANGE), self._codes[goals]], axis=1, dtype=np.float32)
