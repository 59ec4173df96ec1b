"""Regularised evolution (Real et al., AAAI 2019, algorithm 1, https://arxiv.org/abs/1802.01548)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from hwnas.search.controller import Controller
from hwnas.search.objective import Objective
from hwnas.search.warm_start import promising
from hwnas.spaces.errors import InvalidOptionError
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import mutate, sample_coherent


class RegularisedEvolution(Controller):
    """The oldest member of the population dies, whatever its reward; parents are the best of a random sample.

    Deviations from the paper: the first population is drawn near the target (see `promising`), a mutation may set all
    decisions of one kind at once (see `mutate`), a mutant whose cost is such that no accuracy could lift it above its
    parent is not proposed, and the asynchronous form is used: a child is bred whenever one is asked for, from the
    results known by then.

    Args:
        space, objective, seed: See `Controller`.
        population: P, members alive.
        tournament: S, members sampled for each child.
    """

    BATCH = 32

    def __init__(
        self, space: Space, objective: Objective, seed: int = 0, *, population: int = 16, tournament: int = 5
    ) -> None:
        super().__init__(space, objective, seed)
        for name, value in (("population", population), ("tournament", tournament)):
            if not isinstance(value, int) or value < 1:
                raise InvalidOptionError(f"{name} of the evolution must be a whole number of at least 1, got {value!r}")
        self.size = population
        self.tournament = tournament
        self.starts: Rows | None = None
        self.population: deque[tuple[Rows, float]] = deque(maxlen=population)
        self.born = 0

    def propose(self) -> Rows:
        """The first population, the most promising first; mutants of a tournament's winner afterwards."""
        if self.born < self.size or not self.population:
            if self.starts is None:
                self.starts = promising(self.space, self.objective, self.rng, self.size)
            coherent = sample_coherent(self.space, self.rng, self.BATCH)
            return np.concatenate([self.starts, coherent, self.space.sample(self.rng, self.BATCH)])
        contestants = self.rng.choice(len(self.population), size=min(self.tournament, len(self.population)))
        parent, reward = max((self.population[i] for i in contestants), key=lambda member: member[1])
        mutants = mutate(self.space, self.rng, np.repeat(parent[None], self.BATCH, axis=0))
        hopeful: Rows = mutants[self.objective.factor(self.objective.cost(mutants)) >= reward]
        return hopeful

    def ask(self, n: int) -> Rows:
        """See `Controller.ask`."""
        rows = super().ask(n)
        self.born += n
        return rows

    def learn(self, row: Rows, reward: float) -> None:
        """A new member; the oldest dies when there are too many."""
        self.population.append((row, reward))

    def state_dict(self) -> dict[str, Any]:
        """See `Controller.state_dict`."""
        members = [{"row": row.tolist(), "reward": reward} for row, reward in self.population]
        starts = None if self.starts is None else self.starts.tolist()
        return super().state_dict() | {"population": members, "born": self.born, "starts": starts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Controller.load_state_dict`."""
        super().load_state_dict(state)
        self.born = state["born"]
        self.starts = None if state["starts"] is None else np.array(state["starts"], dtype=np.int16)
        members = [(np.array(m["row"], dtype=np.int16), float(m["reward"])) for m in state["population"]]
        self.population = deque(members, maxlen=self.size)
