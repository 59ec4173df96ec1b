"""The hypervolume of fronts, counted by hand, and what new candidates may add to it."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.search import Front, Goal, Objective
from hwnas.search.front import pareto
from hwnas.search.goal import HARD, STRICT

ACCURACY = np.array([0.5, 0.3, 0.8, np.nan, 0.6])
COST = {"latency_ms": np.array([2.0, 1.0, 6.0, 0.5, 7.0])}


def a_front() -> Front:
    return Front.of(lambda rows: {}, "latency_ms", np.arange(1.0, 101.0), worst_cost=10.0, worst_accuracy=0.1)


def test_the_front_is_what_nothing_beats_in_both() -> None:
    assert pareto(np.array([0.5, 0.3, 0.8, 0.8, 0.6]), np.array([2.0, 1.0, 6.0, 6.0, 7.0])).tolist() == [1, 0, 2]
    assert pareto(np.array([]), np.array([])).tolist() == []


def test_the_hypervolume_is_the_area_of_the_stairs() -> None:
    by_hand = (0.3 - 0.1) * (10 - 1) + (0.5 - 0.3) * (10 - 2) + (0.8 - 0.5) * (10 - 6)
    assert a_front().worth(ACCURACY, COST) == pytest.approx(by_hand)
    assert a_front().worth(np.array([0.05, 0.9]), {"latency_ms": np.array([1.0, 11.0])}) == 0
    assert a_front().worth(np.array([]), {"latency_ms": np.array([])}) == 0


@pytest.mark.parametrize("objective", ["front", "goals"])
def test_stakes_are_what_a_candidate_would_add(objective: str) -> None:
    goals = (Goal(3.0), Goal(2.0, exponents=HARD), Goal(5.0, exponents=STRICT))
    own = a_front() if objective == "front" else Objective(lambda rows: {}, goals)
    rng = np.random.default_rng(0)
    accuracy, cost = rng.random(20), {"latency_ms": 12 * rng.random(20)}
    new, new_cost = rng.random(50), {"latency_ms": 12 * rng.random(50)}
    weights, levels = own.stakes(accuracy, cost, new_cost)
    added = (weights * np.maximum(0, new[:, None] - levels)).sum(axis=1)
    before = own.worth(accuracy, cost)
    for i in range(50):
        both = {"latency_ms": np.append(cost["latency_ms"], new_cost["latency_ms"][i])}
        assert own.worth(np.append(accuracy, new[i]), both) - before == pytest.approx(added[i], abs=1e-12)
    assert (added > 0).any()


def test_goals_are_spread_as_candidates_are() -> None:
    targets = [goal.target for goal in a_front().goals]
    assert min(targets) < 1.1
    assert 8.9 < max(targets) < 9.0
    assert {goal.exponents for goal in a_front().goals} == {STRICT}
    assert Front.of(lambda rows: {}, "macs", np.arange(101.0) + 1).worst_cost == 100.0


def test_strict_goals_are_worth_nothing_beyond_their_target() -> None:
    goal = Goal(2.0, exponents=STRICT)
    assert goal.factor({"latency_ms": np.array([1.0, 2.0, 2.001])}).tolist() == [1.0, 1.0, 0.0]


def test_a_candidate_alone_is_worth_the_mean_over_the_goals() -> None:
    objective = Objective(lambda rows: {}, (Goal(1.0, exponents=HARD), Goal(4.0, "macs", STRICT)))
    costs = {"latency_ms": np.array([2.0]), "macs": np.array([3.0])}
    assert objective.reward(np.array([0.8]), costs)[0] == pytest.approx(0.8 * (0.5 + 1) / 2)
