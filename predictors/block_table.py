"""A look-up table of blocks: what each option costs at each position, from few whole networks that were measured.

Latency is taken for a sum, as in FBNet (Wu et al., CVPR 2019, section 3.3): a constant, and for each position the entry
of the option that is there. Twenty-two positions of nine options are 198 entries, and a hundred or two of networks do
not say that many numbers. They need not: blocks of the same operators cost the same wherever they are, others cost what
they compute and move, and an option may be as dear everywhere. So the entries have a normal prior whose covariance is
a sum of four, each of an unknown scale:

| covariance | two entries are alike                                                          |
|------------|--------------------------------------------------------------------------------|
| terms      | as their amounts of `hwnas.predictors.features.latency_terms` are (a line)     |
| operators  | where their operators are equal                                                |
| option     | where they are the same option                                                 |
| alone      | where they are the same entry                                                  |

The scales and the noise are those of the largest marginal likelihood of the measured networks (Rasmussen and Williams,
2006, section 5.4.1), so a device on which, say, every call costs the same says so itself. Noise is Student's t, as
every measuring has hiccups: rows are weighted in turn with the fit, as in `hwnas.predictors.mixture`. All computations
are in the space of the entries, so their time does not depend on how many networks there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from hwnas.predictors.features import latency_terms
from hwnas.predictors.mixture import DEGREES, NOISE_INFLATION
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.operator import Operator

Floats = NDArray[np.float64]
Indexes = NDArray[np.integer]
Blocks = Sequence[Sequence[Sequence[Operator]]]
"""The operators of each option at each position; none where a block is skipped."""

MIN_NETWORKS = 20
ROUNDS = 4
"""Of finding the scales, then the weights of rows."""
CONSTANT_VARIANCE = 100.0
"""Of what every network costs, in variances of the measured costs: as good as unknown."""
LOG_SCALES = (-14.0, 4.0)
"""Least and largest logarithm of a covariance's share, in variances of the measured costs."""


@dataclass(frozen=True, slots=True)
class BlockTable:
    """Costs of blocks by position and option.

    Attributes:
        constant: Cost of the network of the cheapest options.
        entries: What each option costs beyond the cheapest one at its position, shape (positions, options).
        covariance: Of the entries, flattened, and the constant, as far as the networks tell: shape (e + 1, e + 1).
        noise_std: Standard deviation of what is measured, beside what the table says.
    """

    constant: float
    entries: Floats
    covariance: Floats
    noise_std: float

    @classmethod
    def fit(cls, chosen: Indexes, measured: Floats, blocks: Blocks) -> BlockTable:
        """Learns from measured networks.

        Args:
            chosen: The option of each network at each position, shape (n, positions).
            measured: Its cost, such as milliseconds, shape (n,).
            blocks: What the options are made of.

        Raises:
            UnavailableError: Fewer than 20 networks.
        """
        if len(measured) < MIN_NETWORKS:
            raise UnavailableError(f"a table of blocks needs at least {MIN_NETWORKS} networks, not {len(measured)}")
        positions, options = len(blocks), len(blocks[0])
        design = _design(chosen, options)
        mean, spread = float(measured.mean()), float(measured.std()) or 1.0
        found = _Posterior.of(design, (measured - mean) / spread, _covariances(blocks, design[:, :-1]))
        theta = found.mean * spread
        entries = theta[:-1].reshape(positions, options)
        cheapest = entries.min(axis=1, keepdims=True)
        return cls(
            constant=mean + float(theta[-1] + cheapest.sum()),
            entries=entries - cheapest,
            covariance=found.covariance * spread**2,
            noise_std=found.noise_std * spread,
        )

    def predict(self, chosen: Indexes) -> Floats:
        """Costs of networks given by their options, shape (n, positions): shape (n,)."""
        return np.asarray(self.constant + self.entries[np.arange(len(self.entries)), chosen].sum(axis=1))

    def std(self, chosen: Indexes) -> Floats:
        """Standard deviations of what would be measured of networks, shape (n,)."""
        design = _design(chosen, self.entries.shape[1])
        variance = np.einsum("ni,ij,nj->n", design, self.covariance, design).clip(0)
        return np.asarray(np.sqrt(variance + self.noise_std**2))


def _design(chosen: Indexes, options: int) -> Floats:
    """One column per entry, 1 where a network has it, and one of ones: shape (n, positions · options + 1)."""
    n, positions = chosen.shape
    design = np.zeros((n, positions, options))
    design[np.arange(n)[:, None], np.arange(positions), chosen] = 1
    return np.column_stack([design.reshape(n, -1), np.ones(n)])


def _covariances(blocks: Blocks, design: Floats) -> Floats:
    """The four of the module's table, each scaled so that networks vary by 1 under it: shape (4, entries, entries)."""
    flat = [tuple(operators) for position in blocks for operators in position]
    terms = _terms(flat)
    spread = (design @ terms).std(axis=0)
    terms = terms[:, spread > 0] / spread[spread > 0]
    kinds = [flat.index(operators) for operators in flat]
    options = np.tile(np.arange(len(blocks[0])), len(blocks))
    found = (terms @ terms.T, np.equal.outer(kinds, kinds), np.equal.outer(options, options), np.eye(len(flat)))
    centred = design - design.mean(axis=0)
    second_moments = centred.T @ centred / len(design)
    return np.array([c / max(float((second_moments * c).sum()), 1e-9) for c in np.asarray(found, dtype=np.float64)])


def _terms(flat: Sequence[Sequence[Operator]]) -> Floats:
    """Amounts of the latency terms of each entry, shape (entries, terms)."""
    amounts: list[dict[tuple[str, ...], float]] = [{} for _ in flat]
    for own, operators in zip(amounts, flat, strict=True):
        for operator in operators:
            for term, amount in latency_terms(operator):
                own[term] = own.get(term, 0.0) + amount
    names = sorted({term for own in amounts for term in own})
    return np.array([[own.get(name, 0.0) for name in names] for own in amounts])


@dataclass(frozen=True, slots=True)
class _Posterior:
    """Of the entries and the constant, with the standard deviation of the noise."""

    mean: Floats
    covariance: Floats
    noise_std: float

    @classmethod
    def of(cls, design: Floats, target: Floats, covariances: Floats) -> _Posterior:
        logs = np.log(np.append(np.full(len(covariances), 1 / len(covariances)), 0.1))
        weights = np.ones(len(target))
        for _ in range(ROUNDS):
            evidence = _Evidence(design, target, covariances, weights)
            logs = minimize(evidence, logs, jac=True, method="L-BFGS-B", bounds=[LOG_SCALES] * len(logs)).x
            mean, covariance = evidence.posterior(logs)
            noise = float(np.exp(logs[-1]))
            squared = (target - design @ mean) ** 2 + np.einsum("ni,ij,nj->n", design, covariance, design)
            weights = (DEGREES + 1) / (DEGREES + squared / noise)
        return cls(mean, covariance, float(np.sqrt(noise * NOISE_INFLATION)))


class _Evidence:
    """The negative log marginal likelihood of y = Xθ + e and its gradient, with θ ~ N(0, S), e ~ N(0, D).

    S is the sum of the covariances times their scales, D = noise / weights. With M = XᵀD⁻¹X, b = XᵀD⁻¹y and
    W = (I + MS)⁻¹M = XᵀK⁻¹X, where K = XSXᵀ + D, all that is needed has the size of θ:
    log|K| = log|D| + log|I + MS|, and XᵀK⁻¹y = q = (I + MS)⁻¹b.
    """

    def __init__(self, design: Floats, target: Floats, covariances: Floats, weights: Floats) -> None:
        self.n = len(target)
        self.log_weights = float(np.log(weights).sum())
        self.covariances = covariances
        weighted = design * weights[:, None]
        self.moments = design.T @ weighted
        self.products = weighted.T @ target
        self.squares = float(weights @ target**2)

    def __call__(self, logs: Floats) -> tuple[float, Floats]:
        scales, noise = np.exp(logs[:-1]), float(np.exp(logs[-1]))
        prior, w, q, log_determinant = self._solve(logs)
        theta = prior @ q
        misfit = (self.squares - 2 * theta @ self.products + theta @ self.moments @ theta) / noise
        quadratic = misfit + theta @ q
        value = 0.5 * (quadratic + self.n * np.log(2 * np.pi * noise) - self.log_weights + log_determinant)
        excess = (w - np.outer(q, q))[:-1, :-1]
        of_scales = 0.5 * scales * np.einsum("kij,ij->k", self.covariances, excess)
        of_noise = 0.5 * (self.n - float((w * prior).sum()) - misfit)
        return float(value), np.append(of_scales, of_noise)

    def posterior(self, logs: Floats) -> tuple[Floats, Floats]:
        """Mean and covariance of θ."""
        prior, w, q, _ = self._solve(logs)
        return prior @ q, prior - prior @ w @ prior

    def _solve(self, logs: Floats) -> tuple[Floats, Floats, Floats, float]:
        size, noise = len(self.moments), np.exp(logs[-1])
        prior = np.zeros((size, size))
        prior[:-1, :-1] = np.tensordot(np.exp(logs[:-1]), self.covariances, 1)
        prior[-1, -1] = CONSTANT_VARIANCE
        moments = self.moments / noise
        matrix = np.eye(size) + moments @ prior
        solved = np.linalg.solve(matrix, np.column_stack([moments, self.products / noise]))
        return prior, solved[:, :-1], solved[:, -1], float(np.linalg.slogdet(matrix)[1])
