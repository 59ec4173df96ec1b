"""Costs of operators and networks on one device, learnt from whole networks.

An operator timed alone has warm caches and no neighbours, and a runtime's own profiler adds microseconds to every node,
so neither adds up to a network; a power meter sees whole networks only. Here the network's cost is taken apart instead:
with Φ the amounts of the terms of `hwnas.predictors.features` summed over each measured network's operators, and t the
measured costs, the coefficients minimise ‖(Φθ − t) / t‖² + λ‖Sθ‖² under θ ≥ 0, where S scales each term to its typical
share. A cost per call or per byte cannot be negative, and this is what keeps some 300 terms sensible with some 300
networks. Operators that were timed inside networks add a row each, with far less weight than a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from hwnas.predictors.features import Term, latency_terms
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.operator import Operator

Floats = NDArray[np.float64]
Terms = Callable[[Operator], Iterable[tuple[Term, float]]]

Observed = Sequence[tuple[Operator, float, int]]
"""Operators with their cost inside networks, and in how many it was found."""

RIDGE = 1e-5
FOLDS = 5
MIN_NETWORKS = 20
NETWORK_ERROR = 0.02
"""Relative error of a measured network."""
OPERATOR_ERROR = 0.45
"""Error of an operator's cost inside a network, relative to itself and to a typical operator. Neighbours change it, by
23 % in the median, and all operators that the profiler disturbs alike err together: hence more than what it varies."""
MOST_COUNTED = 4
"""More observations of one operator than this count as so many."""


@dataclass(frozen=True, slots=True)
class AdditiveModel:
    """Predicts a cost, such as milliseconds or millijoules, as a sum over operators.

    Attributes:
        terms: The terms of an operator.
        coefficients: Cost per unit of each term.
        per_network: What every network costs beside its operators.
        relative_std: Standard deviation of a network's relative error, by cross-validation.
        covariance: Of the coefficients of the terms in use, for the error of single operators.
        known: The first term of each measured operator, which says what kind it is of.
    """

    terms: Terms
    coefficients: dict[Term, float]
    per_network: float
    relative_std: float
    covariance: Floats
    in_use: tuple[Term, ...]
    known: frozenset[Term]

    @classmethod
    def fit(
        cls,
        networks: Sequence[Sequence[Operator]],
        measured: Sequence[float],
        terms: Terms = latency_terms,
        observed: Observed = (),
    ) -> AdditiveModel:
        """Learns from measured networks.

        Args:
            networks: The operators of each.
            measured: Its measured cost.
            terms: The terms of an operator.
            observed: What is known of single operators.

        Raises:
            UnavailableError: Fewer than 20 networks.
        """
        if len(networks) < MIN_NETWORKS:
            raise UnavailableError(
                f"the device has only {len(networks)} measured networks to learn from, at least {MIN_NETWORKS} are "
                "needed; run 'hwnas device register' for this space again"
            )
        t = np.asarray(measured, dtype=np.float64)
        terms_of = cache(lambda o: tuple(terms(o)))  # networks share most of their operators
        names = sorted({term for operators in networks for o in operators for term, _ in terms_of(o)})
        design = np.column_stack([_design(networks, names, terms_of), np.ones(len(t))]) / t[:, None]
        extra = _rows_of(observed, names, terms, typical_operator(networks, measured))
        theta = _solve(design, extra)
        residuals = design @ theta - 1
        held_out = _cross_validate(design, extra)
        used = np.flatnonzero(theta[:-1] > 0)
        scaled = design[:, used]
        precision = scaled.T @ scaled + RIDGE * len(t) * np.diag((scaled**2).mean(axis=0))
        noise = float((residuals**2).sum() / max(1, len(t) - len(used)))
        return cls(
            terms=terms,
            coefficients={names[i]: float(theta[i]) for i in used},
            per_network=float(theta[-1]),
            relative_std=float(np.sqrt((held_out**2).mean())),
            covariance=np.asarray(noise * np.linalg.inv(precision), dtype=np.float64),
            in_use=tuple(names[i] for i in used),
            known=frozenset(terms_of(o)[0][0] for operators in networks for o in operators),
        )

    def of_operators(self, operators: Sequence[Operator]) -> Floats:
        """Cost of each operator inside a network, shape (n,).

        Raises:
            UnavailableError: An operator of a kind that the device never ran; it is not counted as zero.
        """
        return np.array([self._of_operator(o) for o in operators])

    def _of_operator(self, operator: Operator) -> float:
        terms = list(self.terms(operator))
        if (kind := terms[0][0]) not in self.known:
            raise UnavailableError(
                f"the device has not measured operators like {operator.name or operator.kind} "
                f"({', '.join(kind[:-1])}); run 'hwnas device register' with this space to measure what is new"
            )
        get = self.coefficients.get
        return sum(get(term, 0.0) * amount for term, amount in terms)

    def std_of_operators(self, operators: Iterable[Operator]) -> Floats:
        """Standard deviation of `of_operators` from the uncertainty of the coefficients, shape (n,)."""
        phi = _design([[o] for o in operators], list(self.in_use), self.terms)
        variance: Floats = np.einsum("ni,ij,nj->n", phi, self.covariance, phi).clip(0)
        return np.asarray(np.sqrt(variance))

    def of_networks(self, networks: Sequence[Sequence[Operator]]) -> Floats:
        """Cost of whole networks, shape (n,)."""
        return np.array([self.of_operators(operators).sum() + self.per_network for operators in networks])


def _design(networks: Sequence[Sequence[Operator]], names: Sequence[Term], terms: Terms) -> Floats:
    index = {name: i for i, name in enumerate(names)}
    matrix = np.zeros((len(networks), len(names)))
    for row, operators in zip(matrix, networks, strict=True):
        for operator in operators:
            for term, amount in terms(operator):
                if term in index:
                    row[index[term]] += amount
    return matrix


def typical_operator(networks: Sequence[Sequence[Operator]], measured: Sequence[float]) -> float:
    """The mean cost of an operator in the median network."""
    return float(np.median([cost / len(operators) for operators, cost in zip(networks, measured, strict=True)]))


def _rows_of(observed: Observed, names: Sequence[Term], terms: Terms, typical: float) -> Floats:
    """Rows of the design for single operators, their target in the last column, in units of a network's error."""
    if not observed:
        return np.empty((0, len(names) + 2))
    cost = np.array([c for _, c, _ in observed])
    count = np.array([min(n, MOST_COUNTED) for _, _, n in observed])
    weight = NETWORK_ERROR / OPERATOR_ERROR * np.sqrt(count) / np.hypot(cost, typical)
    alone = np.zeros(len(cost))
    rows = np.column_stack([_design([[o] for o, _, _ in observed], names, terms), alone, cost])
    return np.asarray(rows * weight[:, None], dtype=np.float64)


def _solve(design: Floats, extra: Floats) -> Floats:
    """Non-negative ridge solution of ``design @ theta = 1`` and ``extra[:, :-1] @ theta = extra[:, -1]``.

    The last column is not penalised. The normal equations are small and solved through their Cholesky factor.
    """
    rows = np.vstack([design, extra[:, :-1]])
    scale = np.sqrt((rows**2).sum(axis=0)) + 1e-12
    rows = rows / scale
    ridge = np.full(design.shape[1], RIDGE)
    ridge[-1] = 1e-12
    factor = np.linalg.cholesky(rows.T @ rows + np.diag(ridge))
    target = rows.T @ np.concatenate([np.ones(len(design)), extra[:, -1]])
    theta: Floats = nnls(factor.T, np.linalg.solve(factor, target), maxiter=30 * design.shape[1])[0]
    return np.asarray(theta / scale)


def _cross_validate(design: Floats, extra: Floats) -> Floats:
    """Relative error of each network when it is held out, shape (n,)."""
    errors = np.zeros(len(design))
    for fold in range(FOLDS):
        out = np.arange(len(design)) % FOLDS == fold
        errors[out] = design[out] @ _solve(design[~out], extra) - 1
    return errors
