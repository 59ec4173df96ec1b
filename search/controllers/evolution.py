"""Regularised evolution (Real et al., AAAI 2019, algorithm 1, https://arxiv.org/abs/1802.01548)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hwnas.search.controllers.controller import Controller
from hwnas.search.controllers.options import check_whole
from hwnas.search.controllers.packing import pack, unpack
from hwnas.search.goal import Goal
from hwnas.search.objective import Objective
from hwnas.search.warm_start import promising
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import mutate, sample_coherent


class RegularisedEvolution(Controller):
    """The oldest member of the population dies, whatever its reward; parents are the best of a random sample.

    Deviations from the paper: the first population is drawn near the targets (see `promising`), each child is bred for
    one of the goals, a mutation may set all decisions of one kind at once (see `mutate`), or change up to three where
    all that change one are known, a mutant whose cost is such that no accuracy could lift it above its parent is not
    proposed, and the asynchronous form is used: a child is bred whenever one is asked for, from the results known by
    then.

    Every goal needs parents of its own: with several goals more members are alive and more are sampled, while breeding
    begins long before that many were tried. Costs being known, `RIVALS` mutants of a parent compete, too: the one is
    proposed that would add most to what is known for all goals together, were it as accurate as its parent.

    Args:
        space, objective, seed: See `Controller`.
        population: P, members alive: the last results. For each goal, up to `SEPARATE` goals.
        tournament: S, members sampled for each child. For each goal, likewise.
    """

    BATCH = 32
    SEPARATE = 6
    RIVALS = 4

    def __init__(
        self, space: Space, objective: Objective, seed: int = 0, *, population: int = 16, tournament: int = 5
    ) -> None:
        super().__init__(space, objective, seed)
        check_whole("evolution", population=population, tournament=tournament)
        separate = min(len(objective.goals), self.SEPARATE)
        self.size = population * separate
        self.tournament = tournament * separate
        self.first = population * min(separate, 2)
        self.starts: Rows | None = None
        self.born = 0

    @property
    def population(self) -> Rows:
        """The members alive, the oldest first, shape (at most P, decisions)."""
        return np.asarray(self.results.rows[self._alive()])

    def propose(self) -> Rows:
        """The first population, the most promising first; mutants of a tournament's winner afterwards."""
        alive = self._alive()
        if self.born < self.first or not len(alive):
            if self.starts is None:
                self.starts = promising(self.space, self.objective, self.rng, self.first)
            coherent = sample_coherent(self.space, self.rng, self.BATCH)
            return np.concatenate([self.starts, coherent, self.space.sample(self.rng, self.BATCH)])
        goal = self.objective.draw(self.rng)
        contestants = self.rng.choice(alive, size=min(self.tournament, len(alive)))
        costs = {name: values[contestants] for name, values in self.results.costs.items()}
        rewards = goal.reward(self.results.accuracy[contestants], costs)
        winner = np.lexsort((costs[goal.metric], -rewards))[0]
        parents = np.repeat(self.results.rows[contestants[winner]][None], self.BATCH, axis=0)
        near, far = (
            self._hopeful(
                mutate(self.space, self.rng, parents, most), goal, rewards[winner], costs[goal.metric][winner]
            )
            for most in (1, 3)
        )
        return np.concatenate([self._compete(near, self.results.accuracy[contestants[winner]]), far])

    def accept(self, row: Rows) -> None:
        """Counts the members that were born."""
        self.born += 1

    def state_dict(self) -> dict[str, Any]:
        """See `Controller.state_dict`."""
        starts = None if self.starts is None else pack(self.starts)
        return super().state_dict() | {"born": self.born, "starts": starts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Controller.load_state_dict`."""
        super().load_state_dict(state)
        self.born = int(state["born"])
        self.starts = None if state["starts"] is None else unpack(state["starts"], (None, len(self.space.decisions)))

    def _alive(self) -> np.ndarray[Any, np.dtype[np.intp]]:
        return np.flatnonzero(np.isfinite(self.results.accuracy))[-self.size :]

    def _hopeful(self, mutants: Rows, goal: Goal, reward: float, cost: float) -> Rows:
        """Those that could be better than a parent of that reward and cost."""
        costs = self.objective.cost(mutants)
        hopeful = goal.factor(costs) >= reward if reward > 0 else costs[goal.metric] < cost
        return np.asarray(mutants[hopeful])

    def _compete(self, mutants: Rows, accuracy: float) -> Rows:
        """The first few of those that are new, by what they would add with their parent's accuracy; the rest behind."""
        if len(self.objective.goals) == 1:
            return mutants
        new = mutants[[row.tobytes() not in self._asked for row in mutants]]
        rivals = new[: self.RIVALS]
        if not len(rivals):
            return new
        weights, levels = self.objective.stakes(self.results.accuracy, self.results.costs, self.objective.cost(rivals))
        gains = (weights * np.maximum(0.0, accuracy - levels)).sum(axis=1)
        return np.concatenate([rivals[np.argsort(-gains, kind="stable")], new[self.RIVALS :]])
