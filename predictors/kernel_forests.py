"""A random forest for each kind of operator timed alone, and networks as sums over operators.

nn-Meter's way (Zhang et al., MobiSys 2021, section 5): kernels are timed alone, one random forest per kind of kernel
learns their latency from shape, MACs and weights, and a network takes the sum of its kernels. Two deviations: kinds are
those of `hwnas.predictors.features`, as its own do not tell precisions apart, and kernels are drawn from random
networks of the space rather than refined where the error is large. Kept to compare with; see `hwnas bench latency`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor

from hwnas.predictors.features import Family, family, measures
from hwnas.spaces.operator import Operator

Floats = NDArray[np.float64]
TREES = 100


@dataclass(frozen=True, slots=True)
class KernelForests:
    """Predicts operators timed alone; the mean of all where a kind was never timed.

    Attributes:
        forests: One per kind.
        mean: Of all operators.
    """

    forests: Mapping[Family, RandomForestRegressor]
    mean: float

    @classmethod
    def fit(cls, timed: Mapping[Operator, float]) -> KernelForests:
        """Learns from operators and what each takes alone."""
        groups: dict[Family, list[Operator]] = defaultdict(list)
        for operator in timed:
            groups[family(operator)].append(operator)
        forests = {
            kind: RandomForestRegressor(TREES, random_state=0).fit(_matrix(own), [timed[o] for o in own])
            for kind, own in groups.items()
        }
        return cls(forests, float(np.mean(list(timed.values()))))

    def of_operators(self, operators: Sequence[Operator]) -> Floats:
        """Cost of each, shape (n,)."""
        groups: dict[Family, list[int]] = defaultdict(list)
        for i, operator in enumerate(operators):
            groups[family(operator)].append(i)
        costs = np.full(len(operators), self.mean)
        for kind, own in groups.items():
            if kind in self.forests:
                costs[own] = self.forests[kind].predict(_matrix([operators[i] for i in own]))
        return costs


def _matrix(operators: Sequence[Operator]) -> NDArray[np.float32]:
    return np.array([measures(o) for o in operators], dtype=np.float32)
