"""One network that is wanted: accuracy against one cost, as MnasNet weighs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Goal:
    """MnasNet's weighted product (Tan et al., CVPR 2019, equation 2).

    The reward is ACC · (COST / T)^w with w = α where COST ≤ T and β elsewhere. The published pairs are `SOFT`
    (α = β = −0.07: twice the latency must buy 5 % accuracy) and `HARD` (α = 0, β = −1). Under `STRICT` (β = −∞) what
    costs more than T is worth nothing.

    Attributes:
        target: T, in the metric's unit.
        metric: The cost that is traded against accuracy.
        exponents: (α, β).
    """

    target: float
    metric: str = "latency_ms"
    exponents: tuple[float, float] = SOFT

    def __post_init__(self) -> None:
        if self.metric not in COSTS:
            raise UnknownNameError("cost", self.metric, COSTS)
        if not self.target > 0:
            raise InfeasibleError(f"the target for {self.metric} must be positive, got {self.target}")

    def factor(self, costs: Costs) -> Floats:
        """What accuracy is multiplied by, shape (n,); known before any training."""
        ratio = np.asarray(costs[self.metric], dtype=np.float64) / self.target
        alpha, beta = self.exponents
        return ratio ** np.where(ratio <= 1.0, alpha, beta)

    def reward(self, accuracy: Floats, costs: Costs) -> Floats:
        """Accuracy (n,), as a share, to reward (n,)."""
        return np.asarray(accuracy) * self.factor(costs)

    def describe(self) -> str:
        """In words."""
        kinds = {exponents: form for form, exponents in FORMS.items()}
        kind = kinds.get(self.exponents, f"exponents {self.exponents}")
        return f"accuracy × ({self.metric} / {self.target:.4g})^w, {kind}"
