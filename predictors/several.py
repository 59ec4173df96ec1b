"""Costs on several devices at once, since a candidate is trained once for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hwnas.predictors.cost import CostModel, Costs
from hwnas.spaces.space import Rows

if TYPE_CHECKING:
    from torch import Tensor


class CostsInPlaces:
    """What candidates cost on a device, and on others whose costs have the name of a place before theirs.

    Args:
        here: Of the device whose costs have plain names.
        elsewhere: Of the others, by place.
    """

    def __init__(self, here: CostModel, elsewhere: Mapping[str, CostModel]) -> None:
        self.here = here
        self.elsewhere = dict(elsewhere)

    @property
    def summed(self) -> tuple[str, ...]:
        """Names of the costs that are sums over operators."""
        there = [f"{place}:{name}" for place, model in self.elsewhere.items() for name in model.summed]
        return (*self.here.summed, *there)

    def __call__(self, rows: Rows) -> Costs:
        """As `CostModel.__call__`, with ``place:cost`` for every other place."""
        costs = self.here(rows)
        for place, model in self.elsewhere.items():
            costs |= {f"{place}:{name}": values for name, values in model(rows).items()}
        return costs

    def expected(self, probabilities: Sequence[Tensor], cost: str = "latency_ms") -> Tensor:
        """As `CostModel.expected`, for ``place:cost`` too."""
        place, _, name = cost.rpartition(":")
        return (self.elsewhere[place] if place else self.here).expected(probabilities, name)
