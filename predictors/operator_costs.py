"""What every model of a cost offers, be it learnt from measurements or computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.operator import Operator

Floats = NDArray[np.float64]


class OperatorCosts(Protocol):
    """A cost, such as milliseconds or millijoules, as a sum over operators."""

    @property
    def per_network(self) -> float:
        """What every network costs beside its operators."""

    @property
    def relative_std(self) -> float:
        """Standard deviation of a network's relative error."""

    def of_operators(self, operators: Sequence[Operator]) -> Floats:
        """Cost of each operator inside a network, shape (n,); raises `UnavailableError` where that is not known."""

    def std_of_operators(self, operators: Sequence[Operator]) -> Floats:
        """Standard deviation of `of_operators`, shape (n,)."""

    def of_networks(self, networks: Sequence[Sequence[Operator]]) -> Floats:
        """Cost of whole networks, shape (n,)."""


@dataclass(frozen=True, slots=True)
class Computed:
    """The cost that a simulated device defines: there is nothing that it could be wrong about.

    Attributes:
        cost: Of one operator.
    """

    cost: Callable[[Operator], float]
    per_network: float = 0.0
    relative_std: float = 0.0

    def of_operators(self, operators: Sequence[Operator]) -> Floats:
        """See `OperatorCosts`."""
        return np.array([self.cost(o) for o in operators], dtype=np.float64)

    def std_of_operators(self, operators: Sequence[Operator]) -> Floats:
        """Zero for each."""
        return np.zeros(len(operators))

    def of_networks(self, networks: Sequence[Sequence[Operator]]) -> Floats:
        """See `OperatorCosts`."""
        return np.array([self.of_operators(operators).sum() for operators in networks], dtype=np.float64)
