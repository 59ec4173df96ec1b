"""Evidence and posteriors of many small Gaussian-process models with Student-t noise at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln

Floats = NDArray[np.float64]

DEGREES = 4.0
"""Of freedom of the noise: every measuring has hiccups that a normal distribution calls impossible."""
NOISE_INFLATION = DEGREES / (DEGREES - 2)
"""Variance of Student's t relative to its squared scale."""
ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Posteriors:
    """Of a grid of models, each for k residuals.

    Attributes:
        weights: K⁻¹r: the posterior mean elsewhere is the kernel to the measured points times these, shape (g, k, n).
        inverse: K⁻¹, noise included, shape (g, k, n, n).
        log_evidence: Lower bound of the logarithm of the marginal likelihood, shape (g, k).
    """

    weights: Floats
    inverse: Floats
    log_evidence: Floats


def posteriors(kernels: Floats, noise: Floats, residuals: Floats) -> Posteriors:
    """Fits r = f + e, with f ~ N(0, kernel) and e of Student's t with `DEGREES` degrees of freedom and scale² noise.

    Student's t is a normal distribution of variance noise / u with u ~ Gamma(ν/2, ν/2). f and u are given factorised
    posteriors, updated in turn (mean-field variational inference, as in Tipping and Lawrence,
    Neurocomputing 2005); the bound they reach stands for the evidence.

    Args:
        kernels: Shape (g, n, n).
        noise: Shape (g, n).
        residuals: Shape (k, n).
    """
    n = residuals.shape[1]
    kernel, scale = kernels[:, None], noise[:, None] * np.ones((1, len(residuals), 1))
    shape, rate = (DEGREES + 1) / 2, np.full(scale.shape, (DEGREES + 1) / 2)
    for turn in range(ROUNDS + 1):
        variance = scale * rate / shape
        covariance = kernel + variance[..., None] * np.eye(n)
        inverse = np.linalg.inv(covariance)
        weights = np.einsum("gkij,kj->gki", inverse, residuals)
        if turn == ROUNDS:
            break
        diagonal = np.einsum("gkii->gki", inverse)
        squared_error = (variance * weights) ** 2 + variance - variance**2 * diagonal
        rate = (DEGREES + squared_error / scale) / 2
    log_determinant = np.linalg.slogdet(covariance)[1]
    normal = -0.5 * np.einsum("gki,ki->gk", weights, residuals) - 0.5 * log_determinant - 0.5 * n * np.log(2 * np.pi)
    return Posteriors(weights, inverse, normal + _of_scales(shape, rate))


def _of_scales(shape: float, rate: Floats) -> Floats:
    """What the factor of u adds to the bound, shape (g, k): −KL(q(u) ‖ p(u)) + ½ (E log u − log E u)."""
    prior = DEGREES / 2
    divergence = (
        (shape - prior) * digamma(shape)
        - gammaln(shape)
        + gammaln(prior)
        + prior * (np.log(rate) - np.log(prior))
        + shape * (prior - rate) / rate
    )
    spread = digamma(shape) - np.log(shape)
    total: Floats = (0.5 * spread - divergence).sum(axis=-1)
    return total
