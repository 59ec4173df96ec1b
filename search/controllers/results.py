"""All results that a controller was told, as arrays that grow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.search.controllers.packing import pack, unpack
from hwnas.search.goal import Costs, Floats
from hwnas.spaces.space import Rows


class Results:
    """Candidates, what they cost, and how accurate they turned out to be, in the order they were told.

    Args:
        cost: See `hwnas.search.objective.Objective`.
        decisions: Of the space.
    """

    def __init__(self, cost: Callable[[Rows], Costs], decisions: int) -> None:
        self._cost = cost
        self._rows: Rows = np.empty((0, decisions), dtype=np.int16)
        self._values: Floats = np.empty((0, 2))
        self._costs: dict[str, Floats] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> Rows:
        """Shape (n, decisions)."""
        return self._rows[: self._count]

    @property
    def accuracy(self) -> Floats:
        """Shape (n,), as shares; NaN for those that failed."""
        return np.asarray(self._values[: self._count, 0])

    @property
    def fidelity(self) -> Floats:
        """Shape (n,): the share of the full budget after which the accuracy was had."""
        return np.asarray(self._values[: self._count, 1])

    @property
    def costs(self) -> dict[str, Floats]:
        """By name, shape (n,) each."""
        return {name: values[: self._count] for name, values in self._costs.items()}

    def add(self, rows: Rows, accuracy: Floats, fidelity: Floats) -> None:
        """More results, (m, decisions), (m,) and (m,)."""
        costs = self._cost(rows)
        end = self._count + len(rows)
        if end > len(self._rows) or not self._costs:
            room = max(64, 2 * end)
            self._rows, self._values = _longer(self._rows, room), _longer(self._values, room)
            self._costs = {name: _longer(self._costs.get(name, np.empty(0)), room) for name in costs}
        self._rows[self._count : end] = rows
        self._values[self._count : end] = np.stack([accuracy, fidelity], axis=1)
        for name, values in costs.items():
            self._costs[name][self._count : end] = values
        self._count = end

    def state_dict(self) -> dict[str, Any]:
        """As plain JSON-able data; costs are left out, as they can be computed."""
        return {"rows": pack(self.rows), "values": pack(self._values[: self._count])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        rows = unpack(state["rows"], (None, self._rows.shape[1]))
        values = unpack(state["values"], (len(rows), 2))
        self._count = 0
        if len(rows):
            self.add(rows, values[:, 0], values[:, 1])


def _longer(array: NDArray[Any], length: int) -> NDArray[Any]:
    grown = np.empty((length, *array.shape[1:]), dtype=array.dtype)
    grown[: len(array)] = array
    return grown
