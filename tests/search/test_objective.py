"""MnasNet's reward, its constraints, and what cannot be reached."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from hwnas.latency_tables import load_device
from hwnas.predictors import CostModel
from hwnas.search import Goal, Objective
from hwnas.search.goal import COSTS, HARD, SOFT
from hwnas.search.reach import check_reachable, least_cost
from hwnas.spaces.errors import InfeasibleError, UnknownNameError
from hwnas.spaces.space import Rows

from .fixtures import digits_cost, digits_space


def ramp(rows: Rows) -> Mapping[str, NDArray[np.float64]]:
    """Costs 1, 2, 3 … in the order of the rows, half as many bytes."""
    number = np.arange(1.0, len(rows) + 1)
    return {"latency_ms": number, "weight_bytes": number / 2, "macs": number}


def rows(n: int) -> Rows:
    return np.zeros((n, 1), dtype=np.int16)


def reward(exponents: tuple[float, float], latency_over_target: float) -> float:
    objective = Objective(ramp, (Goal(75.0, exponents=exponents),))
    costs = {"latency_ms": np.array([75.0 * latency_over_target])}
    return float(objective.reward(np.array([0.8]), costs)[0])


@pytest.mark.parametrize(
    ("exponents", "latency_over_target", "expected"),
    [
        (SOFT, 1.0, 0.8),
        (HARD, 1.0, 0.8),
        (SOFT, 2.0, 0.7621),
        (SOFT, 0.5, 0.8398),
        (HARD, 2.0, 0.4),
        (HARD, 4.0, 0.2),
        (HARD, 0.5, 0.8),
        ((-0.5, -1.0), 0.25, 1.6),
    ],
)
def test_the_published_examples(exponents: tuple[float, float], latency_over_target: float, expected: float) -> None:
    assert reward(exponents, latency_over_target) == pytest.approx(expected, abs=5e-5)


def test_twice_the_latency_must_buy_five_per_cent_of_accuracy() -> None:
    assert reward(SOFT, 1.0) / reward(SOFT, 2.0) == pytest.approx(1.05, abs=0.001)


def test_the_default_is_soft_on_latency() -> None:
    objective = Objective(ramp, (Goal(2.0),))
    assert objective.goals[0].metric == "latency_ms"
    rewards = objective.reward(np.array([0.8, 0.8, 0.8]), ramp(rows(3)))
    assert rewards.tolist() == pytest.approx([0.8 * 0.5**-0.07, 0.8, 0.8 * 1.5**-0.07])


def test_another_metric_is_traded() -> None:
    objective = Objective(ramp, (Goal(1.0, metric="weight_bytes", exponents=HARD),))
    assert objective.factor(ramp(rows(4))).tolist() == pytest.approx([1.0, 1.0, 2 / 3, 0.5])


def test_a_failed_trial_has_no_reward() -> None:
    rewards = Objective(ramp, (Goal(2.0),)).reward(np.array([np.nan, 0.5]), ramp(rows(2)))
    assert np.isnan(rewards[0])
    assert rewards[1] == 0.5


def test_feasible_means_below_or_at_every_bound() -> None:
    assert Objective(ramp, (Goal(1.0),)).feasible(rows(3)).tolist() == [True] * 3
    one = Objective(ramp, (Goal(1.0, constraints={"latency_ms": 2.0}),))
    assert one.feasible(rows(3)).tolist() == [True, True, False]
    both = Objective(ramp, (Goal(1.0, constraints={"latency_ms": 2.0, "weight_bytes": 0.5}),))
    assert both.feasible(rows(3)).tolist() == [True, False, False]


def test_every_goal_has_constraints_of_its_own() -> None:
    small = Goal(2.0, exponents=HARD, constraints={"weight_bytes": 0.5})
    fast = Goal(2.0, exponents=HARD, constraints={"macs": 2.0})
    costs = {"latency_ms": np.ones(3), "weight_bytes": np.array([0.5, 1.0, 1.0]), "macs": np.array([2.0, 2.0, 3.0])}
    objective = Objective(lambda _: costs, (small, fast))
    assert objective.feasible(rows(3)).tolist() == [True, True, False]
    assert objective.factor(costs).tolist() == [1.0, 0.5, 0.0]
    assert Objective(lambda _: costs, (small, Goal(2.0))).feasible(rows(3)).all()


def test_a_goals_bounds_are_its_constraints_and_its_target() -> None:
    assert Goal(2.0, constraints={"macs": 7.0}).bounds == {"macs": 7.0, "latency_ms": 2.0}
    assert Goal(2.0, constraints={"latency_ms": 1.0}).bounds == {"latency_ms": 1.0}
    assert Goal(2.0, constraints={"latency_ms": 3.0}).bounds == {"latency_ms": 2.0}


def test_costs_elsewhere_have_the_name_of_the_place_before_them() -> None:
    assert Goal(2.0, "phone:energy_mj").factor({"phone:energy_mj": np.array([2.0])}) == [1.0]
    with pytest.raises(UnknownNameError, match="unknown cost 'phone:latency'; did you mean 'latency_ms'"):
        Goal(2.0, "phone:latency")


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("latency", "latency_ms"), ("mac", "macs"), ("weight_byte", "weight_bytes")]
)
def test_an_unknown_cost_is_an_error_that_names_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown cost '{wrong}'; did you mean '{nearest}'"):
        Goal(1.0, metric=wrong)
    with pytest.raises(UnknownNameError, match=f"unknown cost '{wrong}'; did you mean '{nearest}'"):
        Goal(1.0, constraints={wrong: 1.0})


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan")])
def test_a_target_must_be_positive(target: float) -> None:
    with pytest.raises(InfeasibleError, match="target for latency_ms must be positive"):
        Objective(ramp, (Goal(target),))


def test_it_describes_itself() -> None:
    text = Objective(ramp, (Goal(0.125, exponents=HARD, constraints={"macs": 2e6}),)).describe()
    assert text == "accuracy × (latency_ms / 0.125)^w, hard; macs ≤ 2e+06"
    assert Objective(ramp, (Goal(1.0, exponents=(0.0, -0.5)),)).describe().endswith("exponents (0.0, -0.5)")


@pytest.mark.parametrize("name", COSTS)
def test_what_cannot_be_reached_is_an_error_that_names_the_least_there_is(name: str) -> None:
    space = digits_space()
    cost = CostModel(space, load_device("simulated-bit-fusion")) if name == "energy_mj" else digits_cost()
    sampled = cost(space.sample(np.random.default_rng(7), 20_000))[name].min()
    usual = float(cost.of(space.reference())["latency_ms"])
    objective = Objective(cost, (Goal(usual, constraints={name: sampled / 100}),))
    with pytest.raises(InfeasibleError, match=f"{name} ≤ .* cannot be reached") as caught:
        check_reachable(objective, space, np.random.default_rng(0))
    least = float(re.findall(r"the least this space can do is ([0-9.e+]+)\. ", str(caught.value))[0])
    assert sampled / 100 < least <= sampled
    assert least == pytest.approx(least_cost(space, cost, name, np.random.default_rng(1)), rel=1e-5)


def test_the_target_itself_must_be_reachable() -> None:
    with pytest.raises(InfeasibleError, match="latency_ms ≤ 1e-06 cannot be reached"):
        check_reachable(Objective(digits_cost(), (Goal(1e-6),)), digits_space(), np.random.default_rng(0))


def test_what_can_just_be_reached_is_no_error() -> None:
    space, cost = digits_space(), digits_cost()
    least = {name: least_cost(space, cost, name, np.random.default_rng(0)) for name in ("latency_ms", "weight_bytes")}
    objective = Objective(cost, (Goal(least["latency_ms"], constraints={"weight_bytes": least["weight_bytes"]}),))
    check_reachable(objective, space, np.random.default_rng(0))
