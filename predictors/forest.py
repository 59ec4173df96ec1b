"""Costs of operators from those timed inside networks, brought to what whole networks take.

A physical model of an operator (`hwnas.predictors.additive`) is right for all shapes and exact for none: kernels prefer
some channel numbers and sizes. A forest of extremely randomised trees (Geurts et al., Machine Learning 2006) learns the
ratio of an operator's time inside networks to the physical model's. Times inside networks carry the profiler's cost and
the neighbours' changes of layout, so every family is then scaled, and given a cost per call, such that whole networks
come out right: a ridge regression around scale 1 and cost 0. In an hour in which the machine is disturbed operators
are timed less well than whole networks, so that the physical model keeps a share in what is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwnas.predictors.additive import MOST_COUNTED, AdditiveModel, Observed, typical_operator
from hwnas.predictors.features import Family, family, measures
from hwnas.spaces.operator import Operator

if TYPE_CHECKING:
    from sklearn.ensemble import ExtraTreesRegressor

Floats = NDArray[np.float64]
Networks = Sequence[Sequence[Operator]]

TREES = 50
LEAF = 4
MIN_OPERATORS = 200
"""Fewer operators than this teach a forest nothing."""
FOREST_SHARE = 2 / 3
"""Compared on registrations in calm hours and in disturbed ones: a forest alone is 0.2 points better than with this
share in the former, and 0.9 points worse in the latter."""
MIN_CHECKS = 10
NETWORK_ERROR = 0.025
SCALE_STD = 0.15
CALL_STD = 0.1
"""Of a typical operator's cost."""
NETWORK_STD = 2.0
"""Of a typical operator's cost."""
FOLDS = 5


@dataclass(frozen=True)
class ForestModel:
    """Predicts a cost as a sum over operators; the same interface as `AdditiveModel`.

    Attributes:
        additive: The physical model.
        trees: Ratio of an operator's observed cost to the physical model's.
        scale, per_call: Of each family, from whole networks.
        per_network: What every network costs beside its operators.
        relative_std: Standard deviation of a network's relative error: on networks held out, where there are enough.
        typical: Cost of a typical operator.
        observed: What the forest learnt from.
    """

    additive: AdditiveModel
    trees: ExtraTreesRegressor
    scale: dict[Family, float]
    per_call: dict[Family, float]
    per_network: float
    relative_std: float
    typical: float
    observed: Observed

    @classmethod
    def fit(
        cls,
        additive: AdditiveModel,
        networks: Networks,
        measured: Sequence[float],
        observed: Observed,
        held_out: Sequence[tuple[Sequence[Operator], float]] = (),
    ) -> ForestModel:
        """Learns from operators, then from networks.

        Args:
            additive: Learnt from the same.
            networks, measured: The operators of each network, and its cost.
            observed: Operators with their cost inside networks.
            held_out: Networks and costs that state the error, and nothing else.
        """
        typical = typical_operator(networks, measured)
        trees = _grow(additive, observed, typical)
        distinct = list(dict.fromkeys(o for operators in networks for o in operators))
        raw = dict(zip(distinct, _of_trees(trees, additive.of_operators(distinct), distinct, typical), strict=True))
        families = sorted({family(o) for o in distinct})
        scale, per_call, base = _calibrate(networks, np.asarray(measured), raw, families, typical)
        model = cls(
            additive=additive,
            trees=trees,
            scale=dict(zip(families, scale.tolist(), strict=True)),
            per_call=dict(zip(families, per_call.tolist(), strict=True)),
            per_network=FOREST_SHARE * base + (1 - FOREST_SHARE) * additive.per_network,
            relative_std=additive.relative_std,
            typical=typical,
            observed=observed,
        )
        if len(held_out) < MIN_CHECKS:
            return model
        errors = model.of_networks([operators for operators, _ in held_out]) / [cost for _, cost in held_out] - 1
        return replace(model, relative_std=float(np.sqrt((errors**2).mean())))

    def of_operators(self, operators: Sequence[Operator]) -> Floats:
        """Cost of each operator inside a network, shape (n,).

        Raises:
            UnavailableError: An operator of a kind that the device never ran.
        """
        if not len(operators):
            return np.zeros(0)
        physical = self.additive.of_operators(operators)
        raw = _of_trees(self.trees, physical, operators, self.typical)
        families = [family(o) for o in operators]
        scale = np.array([self.scale.get(f, 1.0) for f in families])
        per_call = np.array([self.per_call.get(f, 0.0) for f in families])
        learnt = (raw * scale + per_call).clip(0)
        return np.asarray(FOREST_SHARE * learnt + (1 - FOREST_SHARE) * physical)

    def of_networks(self, networks: Networks) -> Floats:
        """Cost of whole networks, shape (n,)."""
        flat = self.of_operators([o for operators in networks for o in operators])
        owner = np.repeat(np.arange(len(networks)), [len(operators) for operators in networks])
        return np.asarray(np.bincount(owner, weights=flat, minlength=len(networks)) + self.per_network)

    def std_of_operators(self, operators: Sequence[Operator]) -> Floats:
        """Standard deviation of `of_operators` against what an operator takes inside a network, shape (n,)."""
        share, floor = self._operator_error
        return np.asarray(np.hypot(share * self.of_operators(operators), floor * self.typical))

    @cached_property
    def _operator_error(self) -> tuple[float, float]:
        """Error of operators left out, relative to themselves and to a typical one, by cross-validation."""
        predicted = operators_left_out(self.additive, self.observed, self.typical)
        return error_law(predicted, np.array([c for _, c, _ in self.observed]), self.typical)


def operators_left_out(additive: AdditiveModel, observed: Observed, typical: float) -> Floats:
    """Cost of each observed operator as forests say that did not learn from it, shape (n,): a fifth left out each time.

    Args:
        additive: The physical model.
        observed: Operators with their costs.
        typical: Cost of a typical operator.
    """
    fold = np.random.default_rng(0).integers(FOLDS, size=len(observed))
    predicted = np.zeros(len(observed))
    for f in range(FOLDS):
        known = [entry for entry, own in zip(observed, fold, strict=True) if own != f]
        left = [entry[0] for entry, own in zip(observed, fold, strict=True) if own == f]
        trees = _grow(additive, known, typical)
        predicted[fold == f] = _of_trees(trees, additive.of_operators(left), left, typical)
    return predicted


def _grow(additive: AdditiveModel, observed: Observed, typical: float) -> ExtraTreesRegressor:
    operators = [o for o, _, _ in observed]
    base = _base(additive.of_operators(operators), typical)
    count = np.array([min(n, MOST_COUNTED) for _, _, n in observed])
    from sklearn.ensemble import ExtraTreesRegressor  # slow to import, and most processes grow no trees

    trees = ExtraTreesRegressor(TREES, min_samples_leaf=LEAF, random_state=0)
    ratio = np.array([c for _, c, _ in observed]) / base
    return trees.fit(_matrix(operators), ratio, sample_weight=base * count)


def _of_trees(trees: ExtraTreesRegressor, physical: Floats, operators: Sequence[Operator], typical: float) -> Floats:
    return np.asarray(trees.predict(_matrix(operators)) * _base(physical, typical))


def _base(physical: Floats, typical: float) -> Floats:
    """What the ratio refers to: the physical model, never so little that the ratio loses its meaning."""
    return np.maximum(physical, 0.02 * typical)


def _matrix(operators: Sequence[Operator]) -> NDArray[np.float32]:
    return np.array([measures(o) for o in operators], dtype=np.float32)


def _calibrate(
    networks: Networks, measured: Floats, raw: dict[Operator, float], families: Sequence[Family], typical: float
) -> tuple[Floats, Floats, float]:
    """Scale and cost per call of each family, shape (families,), and cost per network: a Gaussian prior's mode."""
    index = {f: i for i, f in enumerate(families)}
    n = len(families)
    design = np.zeros((len(networks), 2 * n + 1))
    design[:, -1] = 1.0
    for row, operators in zip(design, networks, strict=True):
        for o in operators:
            row[index[family(o)]] += raw[o]
            row[n + index[family(o)]] += 1.0
    expected = np.concatenate([np.ones(n), np.zeros(n + 1)])
    std = np.concatenate([np.full(n, SCALE_STD), np.full(n, CALL_STD * typical), [NETWORK_STD * typical]])
    rows = design / measured[:, None] / NETWORK_ERROR * std
    target = (1 - design @ expected / measured) / NETWORK_ERROR
    shift = np.linalg.solve(rows.T @ rows + np.eye(len(std)), rows.T @ target) * std
    theta = expected + shift
    return theta[:n], theta[n : 2 * n], float(theta[-1])


def error_law(predicted: Floats, cost: Floats, typical: float) -> tuple[float, float]:
    """The standard deviation of predictions, relative to themselves and to a typical operator.

    The share and the floor that make the errors' Gaussian likelihood largest, on a grid.
    """
    best, least = (0.1, 0.1), np.inf
    for share in np.geomspace(0.02, 1.0, 30):
        for floor in np.geomspace(0.005, 1.0, 30):
            std = np.hypot(share * predicted, floor * typical)
            loss = float((((predicted - cost) / std) ** 2 / 2 + np.log(std)).mean())
            if loss < least:
                best, least = (float(share), float(floor)), loss
    return best
