"""Bayesian optimisation of an objective whose costs are known before anything is trained.

ChamNet (Dai et al., CVPR 2019, arXiv 1812.08934) trains networks where a Gaussian process of accuracy is uncertain, and
then looks for the best under any constraint by the process alone. Here the process also knows what is wanted: each
network that is trained is the one expected to add most to the objective, such as the hypervolume below the front of
accuracy and latency. `hwnas.search.adaptation` is ChamNet's second step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hwnas.predictors.accuracy import AccuracyProcess
from hwnas.predictors.encoding import Encoding
from hwnas.search.controllers.acquisition import log_expected_gain
from hwnas.search.controllers.controller import Controller
from hwnas.search.controllers.options import check_whole
from hwnas.search.controllers.packing import pack, unpack
from hwnas.search.goal import Floats
from hwnas.search.objective import Objective
from hwnas.search.warm_start import promising
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import mutate, sample_coherent

ROUNDS, KEPT, CHILDREN = 4, 64, 8
"""Rounds in which the best of them have mutants."""
RESCALED = 1.03
"""The scales of the process are found anew when there are so many times the results."""


class GaussianProcessSearch(Controller):
    """Proposes what is expected to add most to the objective.

    Candidates under evaluation are taken to turn out as predicted, so many may be asked for at a time.

    Args:
        space, objective, seed: See `Controller`.
        start: Candidates before the first that rests on the process: `promising` ones, spread over the goals.
        compared: Random candidates, coherent ones, and mutants of the best that are compared for each proposal.
    """

    def __init__(
        self, space: Space, objective: Objective, seed: int = 0, *, start: int = 8, compared: int = 6000
    ) -> None:
        super().__init__(space, objective, seed)
        check_whole("gp", 2, start=start)
        check_whole("gp", 6, compared=compared)
        self.start = start
        self.compared = compared
        self.starts: Rows | None = None
        self.encoding = Encoding(space, objective.cost)
        self.process = AccuracyProcess(self.encoding.groups)
        self._rescale_at = 0

    def propose(self) -> Rows:
        """The first candidates; of many others those of the highest expected gain afterwards."""
        known = np.flatnonzero(np.isfinite(self.results.accuracy))
        if len(self._asked) < self.start or len(known) < 2:
            return self._firsts()
        self._learn(known)
        rows = self._usable(self._pool(known))
        gains = self._gain(rows)
        for _ in range(ROUNDS):
            best = np.argsort(-gains, kind="stable")[:KEPT]
            children = mutate(self.space, self.rng, np.repeat(rows[best], CHILDREN, axis=0))
            children = self._usable(children)
            rows, first = np.unique(np.concatenate([rows[best], children]), axis=0, return_index=True)
            gains = np.concatenate([gains[best], self._gain(children)])[first]
        return np.asarray(rows[np.argsort(-gains, kind="stable")])

    def state_dict(self) -> dict[str, Any]:
        """See `Controller.state_dict`."""
        starts = None if self.starts is None else pack(self.starts)
        return super().state_dict() | {
            "starts": starts, "scales": self.process.scales, "rescale_at": self._rescale_at,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Controller.load_state_dict`."""
        super().load_state_dict(state)
        self.starts = None if state["starts"] is None else unpack(state["starts"], (None, len(self.space.decisions)))
        self.process.scales = {str(name): [float(v) for v in values] for name, values in state["scales"].items()}
        self._rescale_at = int(state["rescale_at"])

    def _firsts(self) -> Rows:
        if self.starts is None:
            self.starts = promising(self.space, self.objective, self.rng, self.start)
        return np.concatenate([self.starts, self._drawn()])

    def _learn(self, known: np.ndarray[Any, np.dtype[np.intp]]) -> None:
        results, pending = self.results, self.pending
        rescale = len(known) >= self._rescale_at
        if rescale:
            self._rescale_at = int(np.ceil(RESCALED * (len(known) + 1)))
        self.process.learn(
            self.encoding(results.rows[known]), results.accuracy[known], results.fidelity[known], rescale=rescale
        )
        accuracy = np.where(results.fidelity == 1, results.accuracy, np.nan)
        costs = results.costs
        if len(pending):
            points = self.encoding(pending)
            believed = self.process.compression.inverse(self.process.predict(points)[0])
            self.process.believe(points)
            accuracy = np.append(accuracy, believed)
            costs = {name: np.append(costs[name], values) for name, values in self.objective.cost(pending).items()}
        self._known = accuracy, costs

    def _pool(self, known: np.ndarray[Any, np.dtype[np.intp]]) -> Rows:
        costs = {name: values[known] for name, values in self.results.costs.items()}
        rewards = [goal.reward(self.results.accuracy[known], costs) for goal in self.objective.goals]
        parents = self.results.rows[known[np.unique(np.argmax(rewards, axis=1))]]
        repeated = np.arange(self.compared // 6) % len(parents)
        mutants = mutate(self.space, self.rng, parents[repeated])
        return np.concatenate([mutants, self._drawn()])

    def _drawn(self) -> Rows:
        coherent = sample_coherent(self.space, self.rng, self.compared // 6)
        return np.concatenate([coherent, self.space.sample(self.rng, 2 * self.compared // 3)])

    def _usable(self, rows: Rows) -> Rows:
        """Different ones that meet the constraints and were not asked for."""
        rows = np.unique(rows[self.objective.feasible(rows)], axis=0)
        return rows[[row.tobytes() not in self._asked for row in rows]]

    def _gain(self, rows: Rows) -> Floats:
        if not len(rows):
            return np.empty(0)
        mean, std = self.process.predict(self.encoding(rows))
        weights, levels = self.objective.stakes(*self._known, self.objective.cost(rows))
        return log_expected_gain(mean, std, weights, self.process.compression(levels))
