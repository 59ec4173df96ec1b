"""What a search maximises: accuracy against one cost, under constraints on others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.errors import InfeasibleError, UnknownNameError
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import mutate

Floats = NDArray[np.float64]
Costs = dict[str, Floats]
COSTS = ("latency_ms", "energy_mj", "weight_bytes", "peak_memory_bytes", "macs", "params")
SOFT = (-0.07, -0.07)
HARD = (0.0, -1.0)


@dataclass(frozen=True, slots=True)
class Objective:
    """MnasNet's weighted product (Tan et al., CVPR 2019, equation 2), and constraints.

    The reward is ACC · (COST / T)^w with w = α where COST ≤ T and β elsewhere. The published pairs are `SOFT`
    (α = β = −0.07: twice the latency must buy 5 % accuracy) and `HARD` (α = 0, β = −1).

    Attributes:
        cost: Rows (n, decisions) to arrays (n,) by name; a `hwnas.predictors.cost.CostModel`.
        metric: The cost that is traded against accuracy.
        target: T, in the metric's unit.
        exponents: (α, β).
        constraints: Upper bounds by cost name. Candidates that break one are never trained.
    """

    cost: Callable[[Rows], Mapping[str, Floats]]
    target: float
    metric: str = "latency_ms"
    exponents: tuple[float, float] = SOFT
    constraints: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.metric, *self.constraints):
            if name not in COSTS:
                raise UnknownNameError("cost", name, COSTS)
        if not self.target > 0:
            raise InfeasibleError(f"the target for {self.metric} must be positive, got {self.target}")

    def factor(self, costs: Mapping[str, Floats]) -> Floats:
        """What accuracy is multiplied by, shape (n,); known before any training."""
        ratio = np.asarray(costs[self.metric], dtype=np.float64) / self.target
        alpha, beta = self.exponents
        return ratio ** np.where(ratio <= 1.0, alpha, beta)

    def reward(self, accuracy: Floats, costs: Mapping[str, Floats]) -> Floats:
        """Accuracy (n,), as a share, to reward (n,)."""
        return np.asarray(accuracy) * self.factor(costs)

    def feasible(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether each row meets all constraints, shape (n,)."""
        if not self.constraints:
            return np.ones(len(rows), dtype=bool)
        costs = self.cost(rows)
        kept: NDArray[np.bool_] = np.all([costs[name] <= bound for name, bound in self.constraints.items()], axis=0)
        return kept

    def describe(self) -> str:
        """In words."""
        kind = {SOFT: "soft", HARD: "hard"}.get(self.exponents, f"exponents {self.exponents}")
        words = f"accuracy × ({self.metric} / {self.target:.4g})^w, {kind}"
        return words + "".join(f"; {name} ≤ {bound:.6g}" for name, bound in self.constraints.items())

    def check_reachable(self, space: Space, rng: np.random.Generator) -> None:
        """Raises `InfeasibleError` with the least the space can do where the target or a constraint is below it."""
        for name, bound in {self.metric: self.target, **self.constraints}.items():
            least = least_cost(space, self.cost, name, rng)
            if least > bound:
                raise InfeasibleError(
                    f"{name} ≤ {bound:.6g} cannot be reached: the least this space can do is {least:.6g}. "
                    "Raise the target, or give the space smaller options"
                )


def least_cost(
    space: Space, cost: Callable[[Rows], Mapping[str, Floats]], name: str, rng: np.random.Generator, samples: int = 4096
) -> float:
    """The least of one cost that is found from the best of random candidates.

    Coordinate descent as long as it leads down; then mutants, which change several decisions at once, must show that
    nothing near is lower.
    """
    row, value = _lowest(space.sample(rng, samples), cost, name)
    while True:
        neighbours = [_with(row, column, option) for column, size in enumerate(space.sizes) for option in range(size)]
        for moves in (
            space.canonical(np.array(neighbours)),
            mutate(space, rng, np.repeat(row[None], samples, axis=0)),
        ):
            best, least = _lowest(moves, cost, name)
            if least < value * (1 - 1e-9):
                row, value = best, least
                break
        else:
            return value


def _lowest(rows: Rows, cost: Callable[[Rows], Mapping[str, Floats]], name: str) -> tuple[Rows, float]:
    costs = cost(rows)[name]
    best = int(np.argmin(costs))
    return rows[best], float(costs[best])


def _with(row: Rows, column: int, option: int) -> Rows:
    changed = row.copy()
    changed[column] = option
    return changed
