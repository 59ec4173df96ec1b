"""Student-t models against numbers from elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm, t

from hwnas.predictors.mixture import DEGREES, posteriors


def test_the_bound_is_just_below_the_exact_evidence_of_one_measurement() -> None:
    variance, noise, residual = 0.7, 0.2, 1.3
    scale = float(np.sqrt(noise))
    exact = quad(lambda f: norm.pdf(f, scale=variance**0.5) * t.pdf(residual - f, DEGREES, scale=scale), -9, 9)[0]
    bound = posteriors(np.array([[[variance]]]), np.array([[noise]]), np.array([[residual]])).log_evidence.item()
    assert np.log(exact) - 0.2 < bound < np.log(exact)


def test_without_a_function_the_evidence_is_that_of_students_t() -> None:
    residuals = np.array([[0.1, -2.0, 0.4]])
    bound = posteriors(np.zeros((1, 3, 3)), np.full((1, 3), 0.25), residuals).log_evidence.item()
    assert bound == pytest.approx(t.logpdf(residuals, DEGREES, scale=0.5).sum(), abs=1e-9)


def test_ordinary_residuals_are_treated_nearly_as_normal_and_a_hiccup_is_not() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 2))
    kernel = (x @ x.T)[None]
    truth = x @ np.array([1.0, -1.0])
    residual = truth + 0.05 * rng.normal(size=12)
    spoilt = residual.copy()
    spoilt[3] += 5.0
    found = posteriors(kernel, np.full((1, 12), 0.05**2), np.stack([residual, spoilt]))
    fitted = found.weights[0] @ kernel[0]
    assert np.abs(fitted - truth).max() < 0.1
    normal = multivariate_normal(np.zeros(12), kernel[0] + 0.05**2 * np.eye(12))
    assert found.log_evidence[0, 1] > normal.logpdf(spoilt) + 1000
