"""Sums over operators that combine those of several devices."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hwnas.latency_tables.transferred import TransferredModel
from hwnas.predictors.additive import AdditiveModel
from hwnas.predictors.features import Term, latency_terms
from hwnas.predictors.transfer import Transferred

Floats = NDArray[np.float64]


def combine(
    models: Mapping[str, AdditiveModel], found: Transferred, measured_ms: Floats, left_out_ms: Floats
) -> TransferredModel:
    """Σ weight × model + constant, as a profile stores it.

    Single coefficients may come out negative, other than those of a model fitted on its own: one device's stand for
    another's where operators come together.

    Args:
        models: Of latency on the known devices, by name.
        found: Their combination.
        measured_ms: Of the networks that it was found with, shape (k,).
        left_out_ms: Of each what the others predict, shape (k,).
    """
    coefficients: dict[Term, float] = {}
    for model, weight in zip(models.values(), found.weights, strict=True):
        for term, cost in model.coefficients.items():
            coefficients[term] = coefficients.get(term, 0.0) + float(weight) * cost
    per_network = [float(weight) * m.per_network for m, weight in zip(models.values(), found.weights, strict=True)]
    return TransferredModel(
        known=tuple(models),
        weights=tuple(map(float, found.weights)),
        constant_ms=found.constant_ms,
        networks=len(measured_ms),
        relative_std=float(np.sqrt(np.mean((left_out_ms / measured_ms - 1) ** 2))),
        left_out_ms=tuple(map(float, left_out_ms)),
        per_network_ms=found.constant_ms + sum(per_network),
        coefficients=tuple(sorted(coefficients.items())),
        kinds=tuple(sorted(frozenset.intersection(*(m.known for m in models.values())))),
    )


def restore(stored: TransferredModel) -> AdditiveModel:
    """The model of a profile. Of single coefficients it knows no more than the relative error of networks."""
    coefficients = dict(stored.coefficients)
    variances = (stored.relative_std * np.array(list(coefficients.values()))) ** 2
    return AdditiveModel(
        terms=latency_terms,
        coefficients=coefficients,
        per_network=stored.per_network_ms,
        relative_std=stored.relative_std,
        covariance=np.diag(variances),
        in_use=tuple(coefficients),
        known=frozenset(stored.kinds),
    )
