"""The best candidates for other devices and budgets, without further trainings: ChamNet's second step.

A network's accuracy is the same on every device, so what a search learnt of accuracies serves all of them; what a
candidate costs there is known (ChamNet, Dai et al., CVPR 2019, section 3.1: an adaptive genetic algorithm on predictors
of accuracy, latency and energy). The paper does not print the algorithm's parameters; those here are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from hwnas.predictors.accuracy import AccuracyProcess
from hwnas.predictors.encoding import Encoding
from hwnas.search.controllers.results import Results
from hwnas.search.goal import Costs, Floats
from hwnas.spaces.errors import InfeasibleError, UnavailableError
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import crossover, mutate, sample_coherent

POPULATION, ELITE, GENERATIONS = 192, 24, 60
LEAST_RESULTS = 4
PRESSURE, STEP = 3.0, 1.5
"""Interquartile ranges of accuracy that exceeding a bound by all of it costs at first, and by what that changes."""
WANTED = 0.5
"""Share of a generation that is to be within the bounds: the pressure rises below it."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a network may cost somewhere.

    Attributes:
        cost: Rows (n, decisions) to arrays (n,) by name; such as the cost model of a device.
        bounds: The most that each cost may be.
    """

    cost: Callable[[Rows], Costs]
    bounds: Mapping[str, float]

    def excess(self, rows: Rows) -> Floats:
        """By what share each row exceeds the bounds in all, 0 where it is within them, shape (n,)."""
        costs = self.cost(rows)
        over = [np.maximum(0, costs[name] / bound - 1) for name, bound in self.bounds.items()]
        return np.asarray(np.sum(over, axis=0))


@dataclass(frozen=True, slots=True)
class Adapted:
    """A candidate for a budget, as it is predicted.

    Attributes:
        row: Shape (decisions,).
        accuracy: What it is expected to have, a share; ``low`` and ``high`` are a standard deviation to either side.
        costs: By name, where it is to run.
    """

    row: Rows
    accuracy: float
    low: float
    high: float
    costs: dict[str, float]


class Adaptation:
    """What results of a search say of all candidates.

    Args:
        space: Of the candidates.
        results: At least `LEAST_RESULTS` that did not fail.
        cost: Of the device of that search, see `hwnas.predictors.encoding.Encoding`.

    Raises:
        UnavailableError: Too few results.
    """

    def __init__(self, space: Space, results: Results, cost: Callable[[Rows], Costs]) -> None:
        known = np.isfinite(results.accuracy)
        if known.sum() < LEAST_RESULTS:
            raise UnavailableError(f"accuracies of at least {LEAST_RESULTS} candidates are needed, not {known.sum()}")
        self.space = space
        self.rows = results.rows[known]
        self._encoding = Encoding(space, cost)
        self._process = AccuracyProcess(self._encoding.groups)
        self._process.learn(self._encoding(self.rows), results.accuracy[known], results.fidelity[known], rescale=True)

    def best(self, budget: Budget, rng: np.random.Generator) -> Adapted:
        """The candidate of the highest expected accuracy within a budget.

        Raises:
            InfeasibleError: Nothing within it was found.
        """
        drawn = sample_coherent(self.space, rng, 4 * POPULATION)
        rows = np.unique(np.concatenate([self.rows, drawn, self.space.sample(rng, POPULATION)]), axis=0)
        pressure = PRESSURE
        rows = self._fittest(rows, budget, pressure, POPULATION)
        for _ in range(GENERATIONS):
            mothers, fathers = (rows[rng.integers(len(rows), size=POPULATION)] for _ in range(2))
            bred = crossover(self.space, rng, mothers, fathers)
            children = np.concatenate([mutate(self.space, rng, bred), bred, mutate(self.space, rng, rows[:ELITE])])
            rows = self._fittest(np.unique(np.concatenate([rows, children]), axis=0), budget, pressure, POPULATION)
            within = np.mean(budget.excess(rows) == 0)
            pressure *= STEP if within < WANTED else 1 / STEP
        within = rows[budget.excess(rows) == 0]
        if not len(within):
            least = {name: float(budget.cost(rows)[name].min()) for name in budget.bounds}
            raise InfeasibleError(
                f"no candidate within {dict(budget.bounds)} was found; the least of those that come near: {least}"
            )
        return self._adapted(self._fittest(within, budget, 0.0, 1)[0], budget)

    def _fittest(self, rows: Rows, budget: Budget, pressure: float, n: int) -> Rows:
        fitness = self._process.predict(self._encoding(rows))[0] - pressure * budget.excess(rows)
        return np.asarray(rows[np.argsort(-fitness, kind="stable")[:n]])

    def _adapted(self, row: Rows, budget: Budget) -> Adapted:
        mean, std = self._process.predict(self._encoding(row[None]))
        accuracy, low, high = self._process.compression.inverse(np.array([mean[0], mean[0] - std[0], mean[0] + std[0]]))
        costs = {name: float(values[0]) for name, values in budget.cost(row[None]).items()}
        return Adapted(row, float(accuracy), float(low), float(high), costs)
