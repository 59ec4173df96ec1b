"""Sums over operators that combine those of several devices."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwnas.latency_tables.device import TransferredModel
from hwnas.predictors.additive import AdditiveModel
from hwnas.predictors.features import Term, latency_terms
from hwnas.predictors.transfer import Transferred


def combine(models: Mapping[str, AdditiveModel], found: Transferred, networks: int, std: float) -> TransferredModel:
    """Σ weight × model + constant, as a profile stores it.

    Single coefficients may come out negative, other than those of a model fitted on its own: one device's stand for
    another's where operators come together.

    Args:
        models: Of latency on the known devices, by name.
        found: Their combination.
        networks: How many networks it was found with.
        std: Of its relative error.
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
        networks=networks,
        relative_std=std,
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
