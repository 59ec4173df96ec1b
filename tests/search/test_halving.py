"""Early stopping, against Ray Tune's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers.async_hyperband import _Bracket

from hwnas.search import Goal, Objective
from hwnas.search.goal import HARD, STRICT
from hwnas.search.halving import FACTOR, SuccessiveHalving

ONE = np.ones(1)


@dataclass
class Named:
    trial_id: int


@pytest.mark.parametrize("steps", [3, 4, 8, 27])
def test_it_stops_the_trials_that_ray_tune_stops(steps: int) -> None:
    rule, bracket = SuccessiveHalving(steps), _Bracket(max(1, steps // 3), steps, FACTOR, 0, True)
    rng, stopped = np.random.default_rng(steps), 0
    curves = rng.normal(size=(40, 1)) + np.arange(steps) * 0.1 + 0.3 * rng.normal(size=(40, steps))
    alive = dict.fromkeys(range(40), 1)
    while alive:  # workers advance in any order
        number = int(rng.choice(list(alive)[:5]))
        step = alive[number]
        reward = float(curves[number, step - 1])
        theirs = bracket.on_result(Named(number), step, reward) == "STOP" and step < steps
        assert rule.stops(number, step, reward, ONE) == theirs
        stopped += theirs
        alive[number] += 1
        if theirs or step == steps:
            del alive[number]
    assert 5 < stopped < 35


def test_rungs_begin_at_a_third_and_double() -> None:
    assert [list(SuccessiveHalving(steps).rungs) for steps in (1, 2, 3, 4, 8, 27)] == [
        [], [], [1, 2], [1, 2], [2, 4], [9, 18]
    ]  # fmt: skip


def test_a_trial_that_begins_again_is_judged_as_before() -> None:
    """Also one whose worker died after it was to be stopped, and before it was."""
    rule = SuccessiveHalving(3)
    verdicts: list[Any] = [
        rule.stops(n, 1, reward, ONE) for n, reward in ((0, 0.5), (1, 0.6), (0, 0.5), (2, 0.4), (2, 0.4))
    ]
    assert verdicts == [False, False, False, True, True]


@pytest.mark.parametrize("exponents", [HARD, STRICT])
def test_two_budgets_each_keep_their_candidates(exponents: tuple[float, float]) -> None:
    """Small networks serve both, large ones the larger budget alone, where they are the better ones."""
    rng, rule = np.random.default_rng(0), SuccessiveHalving(8)
    goals = Objective(lambda _: {}, (Goal(1.0, exponents=exponents), Goal(4.0, exponents=exponents)))
    kept = {"small": 0, "large": 0}
    for number in range(200):
        kind = ("small", "large")[number % 2]
        latency, accuracy = {"small": (0.9, 0.80), "large": (3.6, 0.93)}[kind]
        factors = goals.factors({"latency_ms": np.array([latency])})[0]
        noise = 0.01 * rng.normal()
        kept[kind] += not any(rule.stops(number, step, accuracy + noise, factors) for step in rule.rungs)
    assert min(kept.values()) > 20


def test_what_serves_no_goal_is_stopped_and_what_alone_serves_one_is_not() -> None:
    rule = SuccessiveHalving(3)
    assert not rule.stops(0, 1, 0.9, np.array([1.0, 0.0]))
    assert rule.stops(1, 1, 0.99, np.array([0.0, 0.0]))
    assert not rule.stops(2, 1, 0.1, np.array([0.0, 1.0]))
    assert rule.stops(3, 1, 0.8, np.array([1.0, 0.0]))
