"""Candidates worth starting from, found from their costs alone: nothing is trained for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwnas.search.goal import Floats
from hwnas.search.objective import Objective
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import mutate, sample_coherent

Indexes = NDArray[np.intp]

CLIMBS = 12
"""Climbs that compete for each candidate wanted."""
STEPS = 240
ROUND = 20
"""Steps after which the worse half of the climbs that compete are given up, and the better half goes on twice."""
MUTANTS = 6


def promising(space: Space, objective: Objective, rng: np.random.Generator, n: int) -> Rows:
    """At most ``n`` distinct candidates that compute as much as fits into the target and the constraints.

    In a large joint space hardly any random candidate meets a tight target, and those that do are poor: small, or slow
    for what they compute. Of two candidates with the same cost, the one with more MACs is usually the more accurate
    (the size of a network is among the best zero-cost proxies: White et al., "A deeper look at zero-cost proxies for
    lightweight NAS", ICLR blog track 2022). So climbs from coherent draws first reduce what exceeds a bound, then add
    MACs. They compete in ``n`` groups, which never meet, and the best of each group is returned. The groups share the
    goals evenly among them. Shape (n, decisions).
    """
    goals = np.linspace(0, len(objective.goals) - 1, min(n, len(objective.goals))).astype(np.intp)
    goal_of_group = goals[np.arange(n) * len(goals) // n]
    drawn = np.concatenate([sample_coherent(space, rng, 30 * n), space.sample(rng, 10 * n)])
    rows = _firsts(objective, drawn, goal_of_group)
    best = _score(objective, rows, goal_of_group)
    for step in range(1, STEPS + 1):
        rows, best = _climb(space, objective, rng, rows, best, goal_of_group)
        if step % ROUND == 0 and step < STEPS:
            rows, best = _give_up_worse_half(rows, best, n)
    winners = best.reshape(CLIMBS, n).argmax(axis=0) * n + np.arange(n)
    _, first = np.unique(rows[winners], axis=0, return_index=True)
    chosen = winners[first]
    result: Rows = rows[chosen[np.argsort(-best[chosen], kind="stable")]]
    return result


def _score(objective: Objective, rows: Rows, goal_of_group: Indexes) -> Floats:
    """By how much each row (n, decisions) exceeds the bounds of its group's goal, below -1; the log of its MACs if not.

    The group of row i is i modulo the number of groups.
    """
    costs = objective.cost(rows)
    own = goal_of_group[np.arange(len(rows)) % len(goal_of_group)]
    bounds = [goal.bounds for goal in objective.goals]
    excess = np.zeros(len(rows))
    for name in sorted({name for of_goal in bounds for name in of_goal}):
        limits = np.array([of_goal.get(name, np.inf) for of_goal in bounds])
        excess = np.maximum(excess, costs[name] / limits[own])
    return np.where(excess > 1, -excess, np.log1p(costs["macs"]))


def _firsts(objective: Objective, drawn: Rows, goal_of_group: Indexes) -> Rows:
    """The best of those drawn, `CLIMBS` for each group."""
    rows = np.empty((CLIMBS, len(goal_of_group), drawn.shape[1]), dtype=drawn.dtype)
    for goal in np.unique(goal_of_group):
        groups = np.flatnonzero(goal_of_group == goal)
        order = np.argsort(-_score(objective, drawn, np.array([goal])), kind="stable")[: CLIMBS * len(groups)]
        rows[:, groups] = drawn[np.resize(order, CLIMBS * len(groups))].reshape(CLIMBS, len(groups), -1)
    return rows.reshape(-1, drawn.shape[1])


def _climb(
    space: Space, objective: Objective, rng: np.random.Generator, rows: Rows, best: Floats, goal_of_group: Indexes
) -> tuple[Rows, Floats]:
    """Each row (n, decisions) or the best of its mutants, and its score."""
    mutants = mutate(space, rng, np.repeat(rows, MUTANTS, axis=0)).reshape(len(rows), MUTANTS, -1)
    by_place = mutants.swapaxes(0, 1).reshape(-1, rows.shape[1])
    scores = _score(objective, by_place, goal_of_group).reshape(MUTANTS, len(rows)).T
    own = np.arange(len(rows))
    winner = scores.argmax(axis=1)
    better = scores[own, winner] > best
    return np.where(better[:, None], mutants[own, winner], rows), np.where(better, scores[own, winner], best)


def _give_up_worse_half(rows: Rows, best: Floats, groups: int) -> tuple[Rows, Floats]:
    """Within each group, that of row i being i modulo ``groups``, the better half twice."""
    by_group = best.reshape(-1, groups)
    order = np.argsort(-by_group, axis=0, kind="stable")
    half = len(order) // 2
    order[half : 2 * half] = order[:half]
    kept = (order * groups + np.arange(groups)).ravel()
    return rows[kept], best[kept]
