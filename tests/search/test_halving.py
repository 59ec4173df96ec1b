"""Early stopping, against Ray Tune's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers.async_hyperband import _Bracket

from hwnas.search.halving import FACTOR, SuccessiveHalving


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
        assert rule.stops(number, step, reward) == theirs
        stopped += theirs
        alive[number] += 1
        if theirs or step == steps:
            del alive[number]
    assert 5 < stopped < 35


def test_rungs_begin_at_a_third_and_double() -> None:
    assert [list(SuccessiveHalving(steps).rungs) for steps in (1, 2, 3, 4, 8, 27)] == [
        [], [], [1, 2], [1, 2], [2, 4], [9, 18]
    ]  # fmt: skip


def test_a_trial_that_begins_again_is_not_judged_twice() -> None:
    rule = SuccessiveHalving(3)
    verdicts: list[Any] = [rule.stops(n, 1, reward) for n, reward in ((0, 0.5), (1, 0.6), (0, 0.5), (2, 0.4))]
    assert verdicts == [False, False, False, True]
