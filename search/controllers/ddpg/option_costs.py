"""What single options cost: the order of mere categories, and a forecast while choices are still to come."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hwnas.search.goal import Costs, Floats
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import decision_kinds

BASES = 32
"""Candidates in which each option is tried in turn."""


class OptionCosts:
    """The options of each decision by rank, and how much each changes the logarithm of the cost on average.

    Ranks of ordinal decisions are their options in order; categories are ranked by what they cost, the cheapest first,
    averaged over the metrics and over all decisions of the same kind and options. Every option is tried in the same
    `BASES` random candidates, which no seed changes.

    Args:
        space: Whose options.
        cost: See `hwnas.search.objective.Objective`.
        metrics: Names of costs.

    Attributes:
        level: Mean logarithm of each metric over those candidates, shape (metrics,).
        effects: Change of it by each decision and rank, relative to the mean of the decision's options, shape
            (decisions, most options, metrics); 0 beyond the last option.
        option_of: Option of each decision and rank, shape (decisions, most options).
        rank_of: The inverse.
    """

    def __init__(self, space: Space, cost: Callable[[Rows], Costs], metrics: Sequence[str]) -> None:
        bases = space.sample(np.random.default_rng(0), BASES)
        decisions, options = np.nonzero(np.arange(space.sizes.max()) < space.sizes[:, None])
        tried = np.repeat(bases[None], len(decisions), axis=0)  # (options of all decisions, bases, decisions)
        tried[np.arange(len(decisions)), :, decisions] = options[:, None]
        logs = _logs(cost(space.canonical(tried.reshape(-1, len(space.sizes)))), metrics)
        means = np.zeros((len(space.sizes), space.sizes.max(), len(metrics)))
        means[decisions, options] = logs.reshape(len(decisions), BASES, len(metrics)).mean(axis=1)
        self.level = _logs(cost(bases), metrics).mean(axis=0)
        self.effects = np.zeros_like(means)
        self.option_of: Rows = np.tile(np.arange(means.shape[1], dtype=np.int16), (len(space.sizes), 1))
        for columns in decision_kinds(space).values():
            for options_alike in {space.decisions[column].options for column in columns}:
                alike = [c for c in columns if space.decisions[c].options == options_alike]
                own = means[alike, : len(options_alike)]
                own -= own.mean(axis=1, keepdims=True)
                if not space.decisions[alike[0]].ordinal:
                    self.option_of[alike, : own.shape[1]] = np.argsort(own.mean(axis=(0, 2)), kind="stable")
                self.effects[alike, : own.shape[1]] = own[:, self.option_of[alike[0], : own.shape[1]]]
        self.rank_of: Rows = np.argsort(self.option_of, axis=1).astype(np.int16)

    def rows(self, ranks: Rows) -> Rows:
        """Options from ranks, both (n, decisions)."""
        return np.asarray(self.option_of[np.arange(ranks.shape[1]), ranks])

    def ranks(self, rows: Rows) -> Rows:
        """Ranks from options, both (n, decisions)."""
        return np.asarray(self.rank_of[np.arange(rows.shape[1]), rows])


def _logs(costs: Costs, metrics: Sequence[str]) -> Floats:
    """Shape (n, metrics)."""
    values: NDArray[np.float64] = np.stack([costs[name] for name in metrics], axis=1)
    return np.log(np.maximum(values, np.finfo(np.float64).tiny))
