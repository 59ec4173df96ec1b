"""How the expected cost enters the loss of the architecture parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class ProductTerm:
    """CE · α · log(LAT)^β: FBNet, equation 2.

    The paper leaves LAT's unit open, though it decides what a saved millisecond is worth, and log(LAT)^β is no number
    below one unit. Here the unit is the least cost of the space divided by e: the logarithm is 1 at the least and
    1 + log(LAT / least) elsewhere, whatever the device, the metric and the space. With the least as the unit itself
    the loss would vanish there, whatever the accuracy.

    Attributes:
        metric: Name of the cost.
        least: Of the space.
        alpha, beta: α and β. α scales the whole loss, to which Adam is blind: β is what weighs the cost.
    """

    metric: str
    least: float
    alpha: float = 0.2
    beta: float = 0.6

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the costs that count."""
        return (self.metric,)

    def __call__(self, loss: Tensor, costs: Mapping[str, Tensor]) -> Tensor:
        """The loss of architectures with that cross entropy and those expected costs, all of shape ()."""
        return loss * self.alpha * torch.log(costs[self.metric] * (math.e / self.least)) ** self.beta


@dataclass(frozen=True, slots=True)
class HingeTerm:
    """CE + weight · max(0, log(LAT / target)): nothing is gained below the target.

    Attributes:
        metric: Name of the cost.
        target: In its unit.
        weight: Of the excess.
    """

    metric: str
    target: float
    weight: float = 1.0

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the costs that count."""
        return (self.metric,)

    def __call__(self, loss: Tensor, costs: Mapping[str, Tensor]) -> Tensor:
        """The loss of architectures with that cross entropy and those expected costs, all of shape ()."""
        return loss + self.weight * functional.relu(torch.log(costs[self.metric] / self.target))


@dataclass(frozen=True, slots=True)
class BoundedTerm:
    """A term, and hinges on further costs: constraints, which the paper has none of.

    Attributes:
        term: Of the metric that is traded.
        bounds: Of the constraints.
    """

    term: ProductTerm | HingeTerm
    bounds: tuple[HingeTerm, ...]

    @property
    def metric(self) -> str:
        """That which is traded."""
        return self.term.metric

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the costs that count."""
        return tuple(dict.fromkeys([self.metric, *(bound.metric for bound in self.bounds)]))

    def __call__(self, loss: Tensor, costs: Mapping[str, Tensor]) -> Tensor:
        """The loss of architectures with that cross entropy and those expected costs, all of shape ()."""
        loss = self.term(loss, costs)
        for bound in self.bounds:
            loss = bound(loss, costs)
        return loss


CostTerm = ProductTerm | HingeTerm | BoundedTerm


def describe(term: CostTerm) -> Mapping[str, Any]:
    """The term as plain data."""
    if isinstance(term, BoundedTerm):
        return {**describe(term.term), "bounds": [describe(bound) for bound in term.bounds]}
    return {"form": type(term).__name__, **asdict(term)}
