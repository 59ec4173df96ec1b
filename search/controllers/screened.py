"""Any controller, searching a proxy: of thousands of candidates that it proposes, the most promising are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hwnas.search.controllers.controller import Controller, controller_class
from hwnas.search.controllers.options import check_whole
from hwnas.search.objective import Objective
from hwnas.spaces.errors import InfeasibleError
from hwnas.spaces.space import Rows, Space

Floats = NDArray[np.float64]


class Proxy(Protocol):
    """Guesses accuracies without training, from what was told of trained candidates."""

    def fitted(self, rows: Rows, accuracy: Floats) -> Any:
        """What is believed after candidates (n, decisions) with accuracies (n,)."""

    def drawn(self, weights: Any, rng: np.random.Generator) -> Any:
        """One of the things that may be believed."""

    def accuracy(self, rows: Rows, weights: Any) -> Floats:
        """Of rows (n, decisions), as shares, shape (n,)."""


class Screened(Controller):
    """Asks another controller for many candidates, tells it what a proxy says of them, and proposes the best.

    The other controller begins anew whenever a candidate is wanted, on a proxy that has learnt from all results so far
    and is drawn from what is believed (Thompson sampling), so that candidates under evaluation at once differ.

    Args:
        space, objective, seed: See `Controller`.
        proxy: Judges candidates.
        name, options: Of the other controller.
        proposals: Candidates that it proposes for each that is trained.
        batch: How many of them at a time.
    """

    def __init__(
        self,
        space: Space,
        objective: Objective,
        seed: int = 0,
        *,
        proxy: Proxy,
        name: str,
        options: Mapping[str, Any],
        proposals: int = 1000,
        batch: int = 20,
    ) -> None:
        super().__init__(space, objective, seed)
        check_whole("screening", proposals=proposals, batch=batch)
        self.proxy = proxy
        self._make = controller_class(name, options)
        self._options = dict(options)
        self.proposals, self.batch = proposals, batch

    def propose(self) -> Rows:
        """What the other controller found, best first by the proxy's accuracy and what they cost."""
        full = np.where(self.results.fidelity >= 1, self.results.accuracy, np.nan)  # others were stopped early
        weights = self.proxy.fitted(self.results.rows, full)
        if len(self._asked):
            weights = self.proxy.drawn(weights, self.rng)
        objective = Objective(self.objective.cost, (self.turn,))
        inner = self._make(self.space, objective, int(self.rng.integers(2**31)), **self._options)
        found: list[Rows] = []
        accuracies: list[Floats] = []
        try:
            for _ in range(-(-self.proposals // self.batch)):
                rows = inner.ask(self.batch)
                found.append(rows)
                accuracies.append(self.proxy.accuracy(rows, weights))
                inner.tell(rows, {"accuracy": accuracies[-1]})
        except InfeasibleError:  # what it had found of the last batch will do
            if not found and not len(inner.pending):
                raise
            found.append(inner.pending)
            accuracies.append(self.proxy.accuracy(inner.pending, weights))
        rows = np.concatenate(found)
        rewards = objective.reward(np.concatenate(accuracies), objective.cost(rows))
        return np.asarray(rows[np.argsort(-rewards, kind="stable")])
