"""Candidates worth starting from, found from their costs alone: nothing is trained for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hwnas.search.objective import Objective
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import mutate, sample_coherent

Floats = NDArray[np.float64]

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
    MACs. They compete in ``n`` groups, which never meet, and the best of each group is returned. Shape (n, decisions).
    """
    bounds = {**objective.constraints}
    bounds[objective.metric] = min(objective.target, bounds.get(objective.metric, np.inf))

    def score(rows: Rows) -> Floats:
        costs = objective.cost(rows)
        excess = np.max([costs[name] / bound for name, bound in bounds.items()], axis=0)
        return np.where(excess > 1, -excess, np.log1p(costs["macs"]))

    drawn = np.concatenate([sample_coherent(space, rng, 30 * n), space.sample(rng, 10 * n)])
    rows = drawn[np.argsort(-score(drawn), kind="stable")[: CLIMBS * n]]
    best = score(rows)
    for step in range(1, STEPS + 1):
        rows, best = _climb(space, rng, rows, best, score)
        if step % ROUND == 0 and step < STEPS:
            rows, best = _give_up_worse_half(rows, best, n)
    winners = best.reshape(CLIMBS, n).argmax(axis=0) * n + np.arange(n)
    _, first = np.unique(rows[winners], axis=0, return_index=True)
    chosen = winners[first]
    result: Rows = rows[chosen[np.argsort(-best[chosen], kind="stable")]]
    return result


def _climb(
    space: Space, rng: np.random.Generator, rows: Rows, best: Floats, score: Callable[[Rows], Floats]
) -> tuple[Rows, Floats]:
    """Each row (n, decisions) or the best of its mutants, and its score."""
    mutants = mutate(space, rng, np.repeat(rows, MUTANTS, axis=0))
    scores = score(mutants).reshape(len(rows), MUTANTS)
    own = np.arange(len(rows))
    winner = scores.argmax(axis=1)
    better = scores[own, winner] > best
    chosen = mutants.reshape(len(rows), MUTANTS, -1)[own, winner]
    return np.where(better[:, None], chosen, rows), np.where(better, scores[own, winner], best)


def _give_up_worse_half(rows: Rows, best: Floats, groups: int) -> tuple[Rows, Floats]:
    """Within each group, that of row i being i modulo ``groups``, the better half twice."""
    by_group = best.reshape(-1, groups)
    order = np.argsort(-by_group, axis=0, kind="stable")
    half = len(order) // 2
    order[half : 2 * half] = order[:half]
    kept = (order * groups + np.arange(groups)).ravel()
    return rows[kept], best[kept]
