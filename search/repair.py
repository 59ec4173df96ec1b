"""Candidates brought within constraints that random ones hardly ever meet."""

from __future__ import annotations

import numpy as np

from hwnas.search.goal import Floats, Goal
from hwnas.search.objective import Objective
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import mutate

STEPS = 400
MUTANTS = 8


def repair(space: Space, objective: Objective, goal: Goal, rng: np.random.Generator, rows: Rows) -> Rows:
    """The rows (n, decisions), each changed little by little until it meets the constraints of the goal.

    Of the mutants of each row the one is kept that exceeds the constraints least, if it does so less than the row. In a
    large joint space with tight constraints, none of many thousand draws may meet them. Rows that meet them are left as
    they are, and a few may never get there. Shape (n, decisions).
    """
    if not len(rows):
        return rows
    rows = rows.copy()
    excess = _excess(objective, goal, rows)
    for _ in range(STEPS):
        left = np.flatnonzero(excess > 1)
        if not len(left):
            break
        mutants = mutate(space, rng, np.repeat(rows[left], MUTANTS, axis=0))
        found = _excess(objective, goal, mutants)
        best = found.reshape(len(left), MUTANTS).argmin(axis=1) + MUTANTS * np.arange(len(left))
        better = found[best] < excess[left]
        rows[left[better]], excess[left[better]] = mutants[best[better]], found[best[better]]
    return rows


def _excess(objective: Objective, goal: Goal, rows: Rows) -> Floats:
    """What each row takes of the tightest constraint, (n,): above 1 where it breaks one."""
    costs = objective.cost(rows)
    return np.asarray(
        np.max([np.zeros(len(rows)), *(costs[name] / bound for name, bound in goal.constraints.items())], axis=0)
    )
