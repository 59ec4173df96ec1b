"""What an evaluation is expected to add to an objective, as a logarithm: tiny chances keep their order.

With the accuracy a of a candidate normal, N(m, s²), and its costs known, it adds Σₖ weightₖ · max(0, a − levelₖ)
(`hwnas.search.objective.Objective.stakes`). Each term's expectation is an expected improvement (Jones et al., 1998),
s · h((m − level) / s) with h(z) = φ(z) + z Φ(z); for a front, whose levels are its steps, their sum is the expected
hypervolume improvement. In floating point h is 0 below z = −38; its logarithm is computed as in LogEI (Ament et al.,
NeurIPS 2023, arXiv 2310.20708, equation 9).
"""

from __future__ import annotations

import numpy as np
from scipy.special import erfcx, log_ndtr

from hwnas.search.goal import Floats

_ROOT_2 = 2.0**0.5
_LOG_ROOT_2_PI = 0.5 * np.log(2 * np.pi)


def log_expected_gain(mean: Floats, std: Floats, weights: Floats, levels: Floats) -> Floats:
    """The logarithm of what each of m candidates is expected to add, shape (m,); -inf for those that cannot add.

    Args:
        mean, std: Of their accuracies, shape (m,).
        weights, levels: Shape (m, k).
    """
    reachable = np.where(np.isfinite(levels), levels, 0.0)
    z = (mean[:, None] - reachable) / std[:, None]
    with np.errstate(divide="ignore"):
        terms = np.log(np.where(np.isfinite(levels), weights, 0.0)) + log_h(z)
    largest = np.max(terms, axis=1)
    shift = np.where(np.isfinite(largest), largest, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(std) + shift + np.log(np.exp(terms - shift[:, None]).sum(axis=1)))


def log_h(z: Floats) -> Floats:
    """log(φ(z) + z Φ(z)), of any shape.

    Above -1 as it stands. Below, φ(z) (1 + z Φ(z) / φ(z)) cancels less, Φ / φ being a scaled complementary error
    function; and where that ratio comes close to -1 / z, it is φ(z) / z² to within 3 / z².
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        log_density = -0.5 * z * z - _LOG_ROOT_2_PI
        near = np.log(np.exp(log_density) + z * np.exp(log_ndtr(z)))
        ratio = (np.pi / 2) ** 0.5 * erfcx(-np.minimum(z, -1.0) / _ROOT_2)
        below = log_density + np.log1p(z * ratio)
        far = log_density - 2 * np.log(-z)
    return np.asarray(np.where(z > -1, near, np.where(z > -1e4, below, far)))
