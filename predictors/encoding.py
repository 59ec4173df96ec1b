"""Candidates as points whose distances mean something: what a kernel of candidates is made of.

Two candidates are as far apart in a decision as its options are:

| decision    | coordinates                                  | squared distance of two options                   |
|-------------|----------------------------------------------|---------------------------------------------------|
| ordinal     | its place among the options, from -½ to ½    | that of the places, at most 1                     |
| categorical | one per option                               | 1, if they differ                                 |
| inactive    | one more, where it is so; the others are 0   | at least ½ to any option, 0 to another inactive   |

Beside the choices, the logarithms of what a candidate costs are coordinates: of cells as of large networks, accuracy
follows multiply–accumulates and parameters more closely than any single choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import decision_kinds

Floats = NDArray[np.float64]
DRAWN = 4096
"""Random candidates by which costs are scaled."""
APART = 16
"""Decisions up to which each has a group of its own; of more, those of one kind share it."""


class Encoding:
    """The points of candidates of a space.

    Args:
        space: Whose.
        cost: Rows (n, decisions) to arrays (n,) by name, the more of them the better.

    Attributes:
        groups: The group of each coordinate of choices, shape (c,): coordinates of one group count alike.
        costs: Names of the costs that are coordinates: those that differ between candidates.
    """

    def __init__(self, space: Space, cost: Callable[[Rows], Mapping[str, Floats]]) -> None:
        self.space = space
        self._cost = cost
        drawn = space.sample(np.random.default_rng(0), DRAWN)
        self._sometimes = np.asarray(~space.active(space.computed(drawn)).all(axis=0))
        self.groups = np.repeat(self._group_of_decision(), self._widths)
        known = {name: values for name, values in cost(drawn).items() if not name.endswith("_std")}
        self.costs = tuple(name for name, values in known.items() if np.ptp(values) > 1e-6 * np.abs(values).max())
        self._least = np.array([0.01 * np.median(known[name]) for name in self.costs])
        logs = self._unscaled(known)
        self._centre, self._spread = logs.mean(axis=0), logs.std(axis=0)

    def __call__(self, rows: Rows) -> Floats:
        """Points (n, c + costs) of rows (n, decisions) in canonical form: choices first."""
        choices = self._choices(self.space.computed(rows))
        if not self.costs:
            return choices
        return np.hstack([choices, (self._unscaled(self._cost(rows)) - self._centre) / self._spread])

    def _choices(self, rows: Rows) -> Floats:
        inactive = ~self.space.active(rows)
        points = np.zeros((len(rows), self._widths.sum()))
        for column, (decision, start, width) in enumerate(
            zip(self.space.decisions, self._widths.cumsum() - self._widths, self._widths, strict=True)
        ):
            own = points[:, start : start + width]
            if decision.ordinal:
                own[:, 0] = rows[:, column] / max(1, len(decision.options) - 1) - 0.5
            else:
                own[np.arange(len(rows)), rows[:, column]] = 0.5**0.5
            if self._sometimes[column]:
                own[inactive[:, column]] = 0.0
                own[inactive[:, column], -1] = 0.5**0.5
        return points

    def _unscaled(self, costs: Mapping[str, Floats]) -> Floats:
        """Logarithms (n, costs) that do not tell apart what is next to nothing."""
        values = (
            np.array([costs[name] for name in self.costs]).reshape(len(self.costs), len(next(iter(costs.values())))).T
        )
        return np.asarray(np.log(np.maximum(values, 0.0) + self._least))

    @cached_property
    def _widths(self) -> NDArray[np.int64]:
        """How many coordinates each decision has, shape (decisions,)."""
        own = [1 if d.ordinal else len(d.options) for d in self.space.decisions]
        return np.array(own) + self._sometimes

    def _group_of_decision(self) -> NDArray[np.int64]:
        count = len(self.space.decisions)
        if count <= APART:
            return np.arange(count)
        groups = np.empty(count, dtype=np.int64)
        for number, columns in enumerate(decision_kinds(self.space).values()):
            groups[columns] = number
        return groups
