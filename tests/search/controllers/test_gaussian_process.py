"""Bayesian optimisation with known costs: what it proposes, and that it finds fronts sooner than chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hwnas.search import Front, Goal, Objective, make_controller
from hwnas.search.goal import STRICT
from hwnas.spaces.errors import InvalidOptionError
from hwnas.spaces.space import Rows
from tests.search.fixtures import bare_space

SPACE = bare_space(4, 4, 4, 4, 4)
ALL = np.array(list(np.ndindex(4, 4, 4, 4, 4)), dtype=np.int16)
USEFUL = np.array([3.0, 2.0, 1.0, 0.5, 0.0])


def cost(rows: Rows) -> dict[str, np.ndarray]:
    """The last decision costs most and is good for nothing."""
    rows = np.atleast_2d(rows)
    return {"latency_ms": 1.0 + rows @ np.array([1.0, 1.0, 1.0, 1.0, 2.0]), "macs": 1.0 + rows.sum(axis=1)}


def accuracy(rows: Rows) -> np.ndarray:
    return np.asarray(0.3 + 0.5 * np.sqrt(np.atleast_2d(rows) @ USEFUL / (3 * USEFUL.sum())))


def a_front() -> Front:
    return Front.of(cost, "latency_ms", cost(ALL)["latency_ms"], worst_cost=19.0, worst_accuracy=0.2)


def found(name: str, objective: Objective, evaluations: int, seed: int, at_a_time: int = 1, **options: Any) -> float:
    """The share of what is there."""
    controller = make_controller(name, SPACE, objective, seed, **options)
    for _ in range(evaluations // at_a_time):
        rows = controller.ask(at_a_time)
        controller.tell(rows, {"accuracy": accuracy(rows)})
    worth = objective.worth(controller.results.accuracy, controller.results.costs)
    return worth / objective.worth(accuracy(ALL), cost(ALL))


@pytest.mark.parametrize("at_a_time", [1, 6])
def test_it_finds_a_front_of_a_thousand_with_thirty_evaluations(at_a_time: int) -> None:
    shares = [found("gp", a_front(), 30, seed, at_a_time, start=6, compared=600) for seed in range(3)]
    by_chance = [found("random", a_front(), 30, seed) for seed in range(3)]
    assert np.mean(shares) > 0.995
    assert np.mean(by_chance) < 0.97


def test_it_serves_all_of_several_goals() -> None:
    goals = (Goal(6.0, exponents=STRICT), Goal(12.0, exponents=STRICT), Goal(9.0, "macs", STRICT))
    objective = Objective(cost, goals)
    assert np.mean([found("gp", objective, 24, seed, start=6, compared=600) for seed in range(3)]) > 0.995


def test_it_does_not_pay_for_what_is_good_for_nothing() -> None:
    """By chance a quarter of all candidates have the last decision at its cheapest option."""
    controller = make_controller("gp", SPACE, a_front(), 0, start=6, compared=600)
    for n in (6, *[1] * 8):
        rows = controller.ask(n)
        controller.tell(rows, {"accuracy": accuracy(rows)})
    assert np.mean(controller.results.rows[6:, -1] == 0) > 0.7


def test_what_is_under_evaluation_is_not_asked_for_in_other_words() -> None:
    """Without believing, eight proposals at once would crowd where one result changes most."""
    controller = make_controller("gp", SPACE, a_front(), 0, start=6, compared=600)
    rows = controller.ask(12)
    controller.tell(rows, {"accuracy": accuracy(rows)})
    costs = cost(controller.ask(8))["latency_ms"]
    assert np.ptp(costs) > 4
    assert len(controller.pending) == 8


def test_a_result_of_a_partial_training_is_no_member_of_the_front() -> None:
    controller = make_controller("gp", SPACE, a_front(), 0, start=6, compared=600)
    rows = controller.ask(8)
    controller.tell(rows, {"accuracy": accuracy(rows) - 0.1, "fidelity": np.full(8, 0.5)})
    assert len(controller.ask(1)) == 1
    assert np.isnan(controller._known[0]).all()  # type: ignore[attr-defined]


@pytest.mark.parametrize("options", [{"start": 1}, {"start": "two"}, {"compared": 0}])
def test_options_that_make_no_sense_are_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError, match=next(iter(options))):
        make_controller("gp", SPACE, a_front(), 0, **options)
