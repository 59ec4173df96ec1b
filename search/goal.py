"""One network that is wanted: accuracy against one cost, as MnasNet weighs them, under constraints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.errors import InfeasibleError, UnknownNameError

Floats = NDArray[np.float64]
Costs = Mapping[str, Floats]
COSTS = ("latency_ms", "energy_mj", "weight_bytes", "peak_memory_bytes", "macs", "params")
SOFT = (-0.07, -0.07)
HARD = (0.0, -1.0)
STRICT = (0.0, -np.inf)
FORMS = {"soft": SOFT, "hard": HARD, "strict": STRICT}


def check_cost(name: str) -> None:
    """Raises `UnknownNameError` for a name that is no cost; ``somewhere:cost`` is a cost on another device."""
    if name.rpartition(":")[2] not in COSTS:
        raise UnknownNameError("cost", name, COSTS)


@dataclass(frozen=True, slots=True)
class Goal:
    """MnasNet's weighted product (Tan et al., CVPR 2019, equation 2).

    The reward is ACC · (COST / T)^w with w = α where COST ≤ T and β elsewhere. The published pairs are `SOFT`
    (α = β = −0.07: twice the latency must buy 5 % accuracy) and `HARD` (α = 0, β = −1). Under `STRICT` (β = −∞) what
    costs more than T is worth nothing, and neither is ever what breaks a constraint.

    Attributes:
        target: T, in the metric's unit.
        metric: The cost that is traded against accuracy.
        exponents: (α, β).
        constraints: Upper bounds by cost name.
    """

    target: float
    metric: str = "latency_ms"
    exponents: tuple[float, float] = SOFT
    constraints: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in (self.metric, *self.constraints):
            check_cost(name)
        if not self.target > 0:
            raise InfeasibleError(f"the target for {self.metric} must be positive, got {self.target}")

    def factor(self, costs: Costs) -> Floats:
        """What accuracy is multiplied by, shape (n,); known before any training."""
        ratio = np.asarray(costs[self.metric], dtype=np.float64) / self.target
        alpha, beta = self.exponents
        return ratio ** np.where(ratio <= 1.0, alpha, beta) * self.meets(costs)

    def meets(self, costs: Costs) -> NDArray[np.bool_]:
        """Whether each candidate meets all constraints, shape (n,)."""
        within = np.ones(np.shape(costs[self.metric]), dtype=bool)
        for name, bound in self.constraints.items():
            within &= np.asarray(costs[name]) <= bound
        return within

    @property
    def demands(self) -> Mapping[str, float]:
        """What a network must not exceed at all: the constraints, and a strict target."""
        return self.bounds if self.exponents[1] == -np.inf else self.constraints

    @property
    def bounds(self) -> dict[str, float]:
        """The constraints, and the target where it is smaller."""
        bounds = dict(self.constraints)
        bounds[self.metric] = min(self.target, bounds.get(self.metric, np.inf))
        return bounds

    def reward(self, accuracy: Floats, costs: Costs) -> Floats:
        """Accuracy (n,), as a share, to reward (n,)."""
        return np.asarray(accuracy) * self.factor(costs)

    def on(self, place: str) -> Goal:
        """The same, of costs at another place: they have its name before theirs."""
        constraints = {f"{place}:{name}": bound for name, bound in self.constraints.items()}
        return replace(self, metric=f"{place}:{self.metric}", constraints=constraints)

    def describe(self) -> str:
        """In words."""
        kinds = {exponents: form for form, exponents in FORMS.items()}
        kind = kinds.get(self.exponents, f"exponents {self.exponents}")
        words = f"accuracy × ({self.metric} / {self.target:.4g})^w, {kind}"
        return words + "".join(f"; {name} ≤ {bound:.6g}" for name, bound in self.constraints.items())
