"""Budgets that candidates keep by construction: HAQ's wall around the actions (Wang et al., CVPR 2019, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hwnas.search.goal import Costs, Floats, Goal
from hwnas.spaces.space import Rows

WALLED = -1.0
"""From this exponent β on a goal's target is a budget: what exceeds it loses at least as large a share of its worth."""


def walled(goal: Goal) -> bool:
    """Whether the goal's target is a budget."""
    return goal.exponents[1] <= WALLED


def budget(goal: Goal) -> Mapping[str, float]:
    """What a candidate for the goal must not exceed, by name: its constraints, and the target of a hard goal."""
    return goal.bounds if walled(goal) else goal.constraints


def strain(costs: Costs, bounds: Sequence[Mapping[str, float]]) -> Floats:
    """How much of its tightest bound each candidate takes, shape (n,): all are met up to 1, and 0 where it has none."""
    names = sorted({name for own in bounds for name in own})
    values = np.zeros((1 + len(names), len(bounds)))
    for i, name in enumerate(names):
        values[1 + i] = costs[name] / np.array([own.get(name, np.inf) for own in bounds])
    return np.asarray(values.max(axis=0))


def lower(
    ranks: Rows, active: Callable[[Rows], NDArray[np.bool_]], strained: Callable[[Rows, NDArray[np.intp]], Floats]
) -> tuple[Rows, NDArray[np.bool_]]:
    """Lowers ranks until the budget is met.

    Sweep after sweep every active decision is lowered by one rank, from the last to the first, and the cost is checked
    after each, until it is within the budget. Deviation from the paper: a decision whose rank, lowered alone, does not
    save anything is left out of a sweep as long as others do (fewer bits may be as slow as more), and one that costs
    more is never lowered.

    Args:
        ranks: Shape (n, decisions).
        active: Which decisions matter, for ranks as above.
        strained: The `strain` of ranks as above, each row of which stems from the one of that number in ``ranks``.

    Returns:
        The ranks, and whether each row meets the budget now, shape (n,). Rows that met it are as they were.
    """
    ranks = ranks.copy()
    strains = strained(ranks, np.arange(len(ranks)))
    left = np.flatnonzero(strains > 1)
    own = np.arange(ranks.shape[1])
    while len(left):
        row, column = np.nonzero(active(ranks[left]) & (ranks[left] > 0))
        alone = ranks[left[row]]
        alone[np.arange(len(row)), column] -= 1
        saved = strains[left[row]] - strained(alone, left[row]) if len(row) else np.empty(0)
        saves, costs_nothing = np.zeros((2, len(left), len(own)), dtype=bool)
        saves[row, column], costs_nothing[row, column] = saved > 0, saved >= 0
        lowered = np.where(saves.any(axis=1, keepdims=True), saves, costs_nothing)
        left, lowered = left[lowered.any(axis=1)], lowered[lowered.any(axis=1)]
        if not len(left):
            break
        row, column = np.nonzero(lowered)
        row, column = row[::-1], column[::-1]  # the last decisions of the last row first
        swept = ranks[left[row]] - (lowered[row] & (own >= column[:, None]))
        after = strained(swept, left[row])
        taken: dict[int, int] = {}
        for step, of in enumerate(row.tolist()):
            if of not in taken or after[taken[of]] > 1:
                taken[of] = step
        chosen = np.array([taken[of] for of in range(len(left))])
        ranks[left], strains[left] = swept[chosen], after[chosen]
        left = left[strains[left] > 1]
    return ranks, strains <= 1
