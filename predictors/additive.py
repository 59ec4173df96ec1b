"""Costs of operators and networks on one device, learnt from whole networks.

An operator timed alone has warm caches and no neighbours, and a runtime's own profiler adds microseconds to every node,
so neither adds up to a network; a power meter sees whole networks only. Here the network's cost is taken apart instead:
with Φ the amounts of the terms of `hwnas.predictors.features` summed over each measured network's operators, and t the
measured costs, the coefficients minimise ‖(Φθ − t) / t‖² + λ‖Sθ‖² under θ ≥ 0, where S scales each term to its typical
share. A cost per call or per byte cannot be negative, and this is what keeps some 300 terms sensible with some 300
networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from hwnas.predictors.features import Term, latency_terms
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.operator import Operator

Floats = NDArray[np.float64]
Terms = Callable[[Operator], Iterator[tuple[Term, float]]]

RIDGE = 1e-5
FOLDS = 5
MIN_NETWORKS = 20


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
        cls, networks: Sequence[Sequence[Operator]], measured: Sequence[float], terms: Terms = latency_terms
    ) -> AdditiveModel:
        """Learns from measured networks.

        Args:
            networks: The operators of each.
            measured: Its measured cost.
            terms: The terms of an operator.

        Raises:
            UnavailableError: Fewer than 20 networks.
        """
        if len(networks) < MIN_NETWORKS:
            raise UnavailableError(
                f"the device has only {len(networks)} measured networks to learn from, at least {MIN_NETWORKS} are "
                "needed; run 'hwnas device register' for this space again"
            )
        t = np.asarray(measured, dtype=np.float64)
        names = sorted({term for operators in networks for o in operators for term, _ in terms(o)})
        design = np.column_stack([_design(networks, names, terms), np.ones(len(t))]) / t[:, None]
        theta = _solve(design)
        residuals = design @ theta - 1
        held_out = _cross_validate(design)
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
            known=frozenset(next(terms(o))[0] for operators in networks for o in operators),
        )

    def of_operators(self, operators: Sequence[Operator]) -> Floats:
        """Cost of each operator inside a network, shape (n,).

        Raises:
            UnavailableError: An operator of a kind that the device never ran; it is not counted as zero.
        """
        for o in operators:
            if (kind := next(self.terms(o))[0]) not in self.known:
                raise UnavailableError(
                    f"the device has not measured operators like {o.name or o.kind} ({', '.join(kind[:-1])}); "
                    "run 'hwnas device register' with this space to measure what is new"
                )
        get = self.coefficients.get
        return np.array([sum(get(term, 0.0) * amount for term, amount in self.terms(o)) for o in operators])

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


def _solve(design: Floats) -> Floats:
    """Non-negative ridge solution of ``design @ theta = 1``; the last column is not penalised."""
    scale = np.sqrt((design**2).mean(axis=0)) + 1e-12
    penalty = np.sqrt(RIDGE * len(design)) * np.eye(design.shape[1])
    penalty[-1, -1] = 0.0
    stacked = np.vstack([design / scale, penalty])
    target = np.concatenate([np.ones(len(design)), np.zeros(design.shape[1])])
    theta: Floats = nnls(stacked, target, maxiter=30 * design.shape[1])[0]
    return np.asarray(theta / scale)


def _cross_validate(design: Floats) -> Floats:
    """Relative error of each network when it is held out, shape (n,)."""
    errors = np.zeros(len(design))
    for fold in range(FOLDS):
        out = np.arange(len(design)) % FOLDS == fold
        errors[out] = design[out] @ _solve(design[~out]) - 1
    return errors
