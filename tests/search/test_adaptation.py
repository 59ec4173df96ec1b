"""Candidates for other budgets, from what one search learnt: against trying all of them."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.search.adaptation import Adaptation, Budget
from hwnas.search.controllers.results import Results
from hwnas.spaces.errors import InfeasibleError, UnavailableError
from hwnas.spaces.space import Rows

from .controllers.test_gaussian_process import ALL, SPACE, accuracy, cost


def learnt(n: int) -> Results:
    rows = ALL[np.random.default_rng(0).permutation(len(ALL))[:n]]
    results = Results(cost, len(SPACE.decisions))
    results.add(rows, accuracy(rows), np.ones(n))
    return results


def elsewhere(rows: Rows) -> dict[str, np.ndarray]:
    """Another device, where other decisions are dear."""
    rows = np.atleast_2d(rows)
    return {"latency_ms": 2.0 + rows @ np.array([3.0, 0.5, 1.0, 2.0, 0.1]), "weight_bytes": 1.0 + rows[:, 0]}


@pytest.fixture(scope="module")
def adaptation() -> Adaptation:
    return Adaptation(SPACE, learnt(60), cost)


@pytest.mark.parametrize(
    "bounds", [{"latency_ms": 6.0}, {"latency_ms": 10.0}, {"latency_ms": 14.0, "weight_bytes": 2.0}]
)
def test_the_best_within_a_budget_is_nearly_that_of_all(bounds: dict[str, float], adaptation: Adaptation) -> None:
    found = adaptation.best(Budget(elsewhere, bounds), np.random.default_rng(0))
    for name, bound in bounds.items():
        assert found.costs[name] <= bound
        assert found.costs[name] == pytest.approx(elsewhere(found.row)[name][0])
    within = ALL[np.all([elsewhere(ALL)[name] <= bound for name, bound in bounds.items()], axis=0)]
    best = accuracy(within).max()
    assert accuracy(found.row)[0] >= best - 0.005
    assert found.low < found.accuracy < found.high
    assert found.accuracy == pytest.approx(accuracy(found.row)[0], abs=0.03)


def test_what_cannot_be_had_is_an_error_that_says_what_can(adaptation: Adaptation) -> None:
    with pytest.raises(InfeasibleError, match=r"no candidate within .*latency_ms.* the least .*2\.0"):
        adaptation.best(Budget(elsewhere, {"latency_ms": 1.0}), np.random.default_rng(0))


def test_too_few_results_are_an_error() -> None:
    with pytest.raises(UnavailableError, match="at least 4 candidates are needed, not 3"):
        Adaptation(SPACE, learnt(3), cost)
