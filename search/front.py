"""The whole front of accuracy against one cost, as the objective of a search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.search.goal import STRICT, Costs, Floats, Goal
from hwnas.search.objective import Objective
from hwnas.spaces.space import Rows

TARGETS = 64


@dataclass(frozen=True)
class Front(Objective):
    """Every target is a goal: what candidates are worth is the hypervolume that they dominate.

    Each strict goal of `TARGETS` is what a controller may pursue with a candidate; `worth` and `stakes` are of all
    targets up to the worst cost.

    Attributes:
        worst_cost: Where the hypervolume ends, in the metric's unit.
        worst_accuracy: Where it begins, a share.
    """

    worst_cost: float = np.inf
    worst_accuracy: float = 0.0

    @classmethod
    def of(
        cls, cost: Callable[[Rows], Costs], metric: str, usual: Floats, *,
        worst_cost: float | None = None, worst_accuracy: float = 0.0,
    ) -> Front:  # fmt: skip
        """The front up to a cost.

        Args:
            cost: As `Objective.cost`.
            metric: The cost against which accuracy stands.
            usual: The metric of many candidates (n,): as they are spread, so are the goals.
            worst_cost: The 99th percentile of those by default.
            worst_accuracy: See `Front`.
        """
        worst = float(np.quantile(usual, 0.99)) if worst_cost is None else worst_cost
        below = usual[usual < worst]
        targets = np.quantile(below, (np.arange(TARGETS) + 0.5) / TARGETS)
        goals = tuple(Goal(float(target), metric, STRICT) for target in targets)
        return cls(cost, goals, worst, worst_accuracy)

    @property
    def metric(self) -> str:
        """The cost against which accuracy stands."""
        return self.goals[0].metric

    def worth(self, accuracy: Floats, costs: Costs) -> float:
        """The hypervolume, in shares of accuracy times the metric's unit."""
        levels, starts = self._steps(accuracy, costs)
        return float(((levels[1:] - levels[:-1]) * (self.worst_cost - starts[1:])).sum())

    def stakes(self, accuracy: Floats, costs: Costs, new: Costs) -> tuple[Floats, Floats]:
        """See `Objective.stakes`: one level per step of the known front, and its width beyond the candidate's cost."""
        levels, starts = self._steps(accuracy, costs)
        ends = np.append(starts[1:], self.worst_cost)
        own = np.asarray(new[self.metric], dtype=np.float64)[:, None]
        widths = (ends - np.maximum(starts, own)).clip(0)
        return widths, np.broadcast_to(levels, widths.shape)

    def describe(self) -> str:
        """In words."""
        return (
            f"the hypervolume of accuracy above {self.worst_accuracy:.0%} and {self.metric} below {self.worst_cost:.4g}"
        )

    def _steps(self, accuracy: Floats, costs: Costs) -> tuple[Floats, Floats]:
        """The accuracies of the known front in rising order, the worst one first, and from which cost each is had."""
        accuracy = np.where(np.isfinite(accuracy), accuracy, -np.inf)
        cost = np.asarray(costs[self.metric], dtype=np.float64)
        within = np.flatnonzero((cost < self.worst_cost) & (accuracy > self.worst_accuracy))
        best = within[pareto(accuracy[within], cost[within])]
        levels = np.concatenate([[self.worst_accuracy], accuracy[best]])
        return levels, np.concatenate([[-np.inf], cost[best]])


def pareto(accuracy: Floats, cost: Floats) -> NDArray[np.intp]:
    """Indexes of the candidates that no other beats in both, by rising cost; one of those that are equal."""
    order = np.lexsort((-accuracy, cost))
    best = np.maximum.accumulate(accuracy[order])
    return order[np.concatenate([[True], best[1:] > best[:-1]])] if len(order) else order
