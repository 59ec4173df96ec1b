"""Candidates worth starting from, found from their costs alone: nothing is trained for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwnas.search.objective import Objective
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import mutate, sample_coherent

CLIMBS = 12
"""Climbs for each candidate wanted."""
STEPS = 80
MUTANTS = 6


def promising(space: Space, objective: Objective, rng: np.random.Generator, n: int) -> Rows:
    """At most ``n`` distinct candidates that compute as much as fits into the target and the constraints.

    In a large joint space hardly any random candidate meets a tight target, and those that do are poor: small, or slow
    for what they compute. Of two candidates with the same cost, the one with more MACs is usually the more accurate
    (the size of a network is among the best zero-cost proxies: White et al., "A deeper look at zero-cost proxies for
    lightweight NAS", ICLR blog track 2022). So many independent climbs from coherent draws first reduce what exceeds a
    bound, then add MACs, and the best of them are returned. Shape (n, decisions).
    """
    bounds = {**objective.constraints}
    bounds[objective.metric] = min(objective.target, bounds.get(objective.metric, np.inf))

    def score(rows: Rows) -> NDArray[np.float64]:
        costs = objective.cost(rows)
        excess = np.max([costs[name] / bound for name, bound in bounds.items()], axis=0)
        return np.where(excess > 1, -excess, np.log1p(costs["macs"]))

    drawn = np.concatenate([sample_coherent(space, rng, 30 * n), space.sample(rng, 10 * n)])
    rows = drawn[np.argsort(-score(drawn), kind="stable")[: CLIMBS * n]]
    best = score(rows)
    for _ in range(STEPS):
        mutants = mutate(space, rng, np.repeat(rows, MUTANTS, axis=0))
        scores = score(mutants).reshape(len(rows), MUTANTS)
        winner = scores.argmax(axis=1)
        own = np.arange(len(rows))
        better = scores[own, winner] > best
        rows = np.where(better[:, None], mutants.reshape(len(rows), MUTANTS, -1)[own, winner], rows)
        best = np.where(better, scores[own, winner], best)
    _, first = np.unique(rows, axis=0, return_index=True)
    result: Rows = rows[first[np.argsort(-best[first], kind="stable")][:n]]
    return result
