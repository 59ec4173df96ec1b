"""Values that several decisions decide and that are few: a column of their own keeps the tables of slots small.

A cell's edge is one of a few dozen operators in its place, though six decisions, 15,625 combinations, tell which.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces.space import Rows, Space
from hwnas.spaces.value import Value, reads
from hwnas.spaces.value_table import tabulate

if TYPE_CHECKING:
    from torch import Tensor

LEAST_COMBINATIONS = 2**10
"""Of the decisions: fewer are as fast to look up one by one."""
LEAST_SAVED = 8
"""How many combinations give the same value, on average."""


@dataclass(frozen=True, slots=True)
class Fold:
    """A value as a column of rows.

    Attributes:
        name: Unlike that of any decision.
        columns, sizes: Of the decisions that it depends on, and their options.
        which: Index into ``values`` for each combination, in the order of `itertools.product`, shape (combinations,).
        values: All different ones.
    """

    name: str
    columns: tuple[int, ...]
    sizes: tuple[int, ...]
    which: NDArray[np.int64]
    values: tuple[Any, ...]

    def of_rows(self, rows: Rows) -> NDArray[np.int64]:
        """The index of the value that each row (n, decisions) gives, shape (n,)."""
        index = np.ravel_multi_index(tuple(rows[:, c] for c in self.columns), self.sizes)
        return self.which[index]

    def probabilities(self, of_decisions: Sequence[Tensor]) -> Tensor:
        """Of each value, shape (values,), where each decision is drawn independently: one tensor for each of them."""
        import torch

        joint = of_decisions[self.columns[0]]
        for column in self.columns[1:]:
            joint = torch.outer(joint, of_decisions[column]).flatten()
        return joint.new_zeros(len(self.values)).index_add(0, torch.as_tensor(self.which), joint)


def fold(v: Value, space: Space, name: str) -> Fold | None:
    """The value as a column, or None where that would save little."""
    columns = tuple(space.column(n) for n in reads(v))
    sizes = tuple(int(space.sizes[c]) for c in columns)
    combinations = math.prod(sizes)
    if len(columns) < 2 or combinations < LEAST_COMBINATIONS:
        return None
    table = tabulate(v, {space.decisions[c].name: space.decisions[c].options for c in columns})
    if len(table.values) * LEAST_SAVED > combinations:
        return None
    return Fold(name, columns, sizes, table.which.ravel(), tuple(table.values))
