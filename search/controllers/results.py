"""All results that a controller was told, as arrays that grow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hwnas.search.controllers.grown import Grown
from hwnas.search.controllers.packing import pack, unpack
from hwnas.search.goal import Costs, Floats
from hwnas.spaces.errors import UnknownNameError
from hwnas.spaces.space import Rows


class Results:
    """Candidates, what they cost, and how accurate they turned out to be, in the order they were told.

    Args:
        cost: See `hwnas.search.objective.Objective`.
        decisions: Of the space.
    """

    def __init__(self, cost: Callable[[Rows], Costs], decisions: int) -> None:
        self._cost = cost
        self._decisions = decisions
        self._clear()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> Rows:
        """Shape (n, decisions)."""
        return self._rows.all

    @property
    def accuracy(self) -> Floats:
        """Shape (n,), as shares; NaN for those that failed."""
        return self._values[:, 0]

    @property
    def fidelity(self) -> Floats:
        """Shape (n,): the share of the full budget after which the accuracy was had."""
        return self._values[:, 1]

    @property
    def costs(self) -> dict[str, Floats]:
        """By name, shape (n,) each: as measured where that was told, else as predicted."""
        return {name: values.all for name, values in self._costs.items()}

    def add(self, rows: Rows, accuracy: Floats, fidelity: Floats, measured: Costs | None = None) -> None:
        """More results, (m, decisions), (m,) and (m,).

        ``measured`` are costs by name, shape (m,) each; NaN where a candidate was not measured. Raises
        `UnknownNameError` where nothing of such a name is predicted.
        """
        predicted, measured = self._cost(rows), measured or {}
        for name in measured:
            if name not in predicted:
                raise UnknownNameError("cost", name, predicted)
        self._rows.add(rows)
        self._values.add(np.stack([accuracy, fidelity], axis=1))
        for name, values in predicted.items():
            own = measured.get(name, np.full(len(rows), np.nan))
            self._measured.setdefault(name, Grown()).add(own)
            self._costs.setdefault(name, Grown()).add(np.where(np.isnan(own), values, own))

    def state_dict(self) -> dict[str, Any]:
        """As plain JSON-able data; predicted costs are left out, as they can be computed."""
        measured = {name: own.all for name, own in self._measured.items() if np.isfinite(own.all).any()}
        return {
            "rows": pack(self.rows),
            "values": pack(self._values.all),
            "measured": {name: pack(own) for name, own in measured.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        rows = unpack(state["rows"], (None, self._decisions))
        values = unpack(state["values"], (len(rows), 2))
        measured = {str(name): unpack(own, (len(rows),)) for name, own in state.get("measured", {}).items()}
        self._clear()
        if len(rows):
            self.add(rows, values[:, 0], values[:, 1], measured)

    def _clear(self) -> None:
        self._rows = Grown(np.empty((0, self._decisions), dtype=np.int16))
        self._values = Grown(np.empty((0, 2)))
        self._costs: dict[str, Grown] = {}
        self._measured: dict[str, Grown] = {}
