"""What a space can reach: the least of each cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from hwnas.search.goal import Floats
from hwnas.search.objective import Objective
from hwnas.spaces.errors import InfeasibleError
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import mutate


def check_reachable(objective: Objective, space: Space, rng: np.random.Generator) -> None:
    """Raises `InfeasibleError` with the least the space can do where a target or a constraint is below it."""
    bounds = [bound for goal in objective.goals for bound in goal.bounds.items()]
    least_of = {name: least_cost(space, objective.cost, name, rng) for name in dict(bounds)}
    for name, bound in bounds:
        least = least_of[name]
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
