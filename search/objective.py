"""What a search maximises: how well it serves its goals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.search.goal import Costs, Floats, Goal
from hwnas.spaces.space import Rows


@dataclass(frozen=True)
class Objective:
    """A network is wanted for each goal; every candidate is tried for all of them, as its costs are known.

    Attributes:
        cost: Rows (n, decisions) to arrays (n,) by name; a `hwnas.predictors.cost.CostModel`.
        goals: At least one.
    """

    cost: Callable[[Rows], Costs]
    goals: tuple[Goal, ...]

    def draw(self, rng: np.random.Generator) -> Goal:
        """The goal that a controller pursues with its next candidate: any of them with equal chance."""
        return self.goals[int(rng.integers(len(self.goals)))] if len(self.goals) > 1 else self.goals[0]

    def factors(self, costs: Costs) -> Floats:
        """What accuracy is multiplied by for each goal, shape (…, goals)."""
        return np.stack([goal.factor(costs) for goal in self.goals], axis=-1)

    def factor(self, costs: Costs) -> Floats:
        """What accuracy is multiplied by, shape (n,): the mean of the goals' factors."""
        return np.asarray(self.factors(costs).mean(axis=-1))

    def reward(self, accuracy: Floats, costs: Costs) -> Floats:
        """What one candidate alone is worth, shape (n,): the mean of the goals' rewards."""
        return np.asarray(accuracy) * self.factor(costs)

    def worth(self, accuracy: Floats, costs: Costs) -> float:
        """What candidates are worth together: the mean over the goals of the best reward, 0 where there is none.

        Args:
            accuracy: Shape (n,), as shares; NaN for those that failed.
            costs: Of the same candidates.
        """
        return float(np.mean(self._best(accuracy, costs)))

    def stakes(self, accuracy: Floats, costs: Costs, new: Costs) -> tuple[Floats, Floats]:
        """What new candidates may add to the `worth` of known ones, whatever their accuracies turn out to be.

        Args:
            accuracy, costs: Of the known ones, see `worth`.
            new: Costs of m others.

        Returns:
            Weights and levels, both (m, k): with accuracy a, candidate i alone adds Σₖ weightᵢₖ · max(0, a − levelᵢₖ).
        """
        factors = self.factors(new)
        levels = np.full_like(factors, np.inf)
        np.divide(self._best(accuracy, costs), factors, out=levels, where=factors > 0)
        return factors / len(self.goals), levels

    def feasible(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether each row meets all constraints of some goal, shape (n,). Others are never trained."""
        if not all(goal.constraints for goal in self.goals):
            return np.ones(len(rows), dtype=bool)
        costs = self.cost(rows)
        return np.asarray(np.any([goal.meets(costs) for goal in self.goals], axis=0))

    def describe(self) -> str:
        """In words."""
        return " and ".join(goal.describe() for goal in self.goals)

    def _best(self, accuracy: Floats, costs: Costs) -> Floats:
        """The best reward for each goal, shape (goals,)."""
        rewards = [goal.reward(accuracy, costs) for goal in self.goals]
        return np.array([np.nanmax(np.append(of_goal, 0.0)) for of_goal in rewards])
