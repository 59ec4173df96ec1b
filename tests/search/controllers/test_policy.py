"""The recurrent policy: what it may draw, and with which probability it says it does."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from hwnas.search.controllers.ppo.policy import Policy, deciding_order, goal_features
from hwnas.search.goal import STRICT, Goal
from hwnas.spaces import Space, load_space
from hwnas.spaces.canonical import Activity
from hwnas.spaces.decision import Decision
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.slot import When
from tests.contracts.controller_contract import SPACE, TINY_NETWORKS, tiny_space

GOALS = (Goal(2.0), Goal(4.0))


def opinionated(space: Space) -> Policy:
    """A policy that is far from its first state, in which all options are equally likely."""
    policy = Policy(space, GOALS, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (policy.weight, policy.bias):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return policy


def space_of(decisions: dict[str, int], activities: list[Activity]) -> Space:
    return Space(
        name="made-up", spec={}, slots=[], input_shape=(1, 8, 8), num_classes=2, activities=activities,
        decisions=[Decision(name, tuple(range(size))) for name, size in decisions.items()],
    )  # fmt: skip


def test_the_probabilities_of_all_that_can_be_drawn_add_up_to_one() -> None:
    space = tiny_space()
    rows = np.array(list(product(*map(range, space.sizes))), dtype=np.int16)
    possible = rows[(space.active(rows) | (rows == 0)).all(axis=1)]
    assert len(possible) == TINY_NETWORKS
    for goal in (0, 1):
        logs, _ = opinionated(space)(possible, np.full(len(possible), goal))
        assert logs.sum(dim=1).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_rows_are_drawn_as_often_as_their_probabilities_say() -> None:
    space, policy = tiny_space(), opinionated(tiny_space())
    drawn, _ = policy.draw(1, np.random.default_rng(0).random((4000, 3)))
    rows, counts = np.unique(drawn, axis=0, return_counts=True)
    probabilities = policy(rows, np.ones(len(rows), dtype=int))[0].sum(dim=1).exp().detach().numpy()
    assert len(rows) > TINY_NETWORKS / 2
    assert (space.active(rows) | (rows == 0)).all()
    errors = (probabilities * (1 - probabilities) / 4000) ** 0.5
    assert np.abs(counts / 4000 - probabilities).max() < 4 * errors.max()


def test_a_draw_knows_the_probabilities_that_are_found_afterwards() -> None:
    policy = opinionated(SPACE)
    rows, logs = policy.draw(1, np.random.default_rng(0).random((20, len(SPACE.decisions))))
    again, _ = policy(rows, np.ones(20, dtype=int))
    assert np.abs(again.detach().numpy() - logs).max() < 1e-4
    other, _ = policy(rows, np.zeros(20, dtype=int))
    assert np.abs(other.detach().numpy() - logs).max() > 0.01  # goals matter


def test_what_does_not_matter_is_not_chosen_and_has_no_probability() -> None:
    policy = opinionated(SPACE)
    rows, logs = policy.draw(0, np.random.default_rng(0).random((50, len(SPACE.decisions))))
    active = SPACE.active(rows)
    assert 0.05 < np.mean(~active) < 0.95
    assert (rows >= 0).all()
    assert (rows < SPACE.sizes).all()
    assert (rows[~active] == 0).all()
    assert (logs[~active] == 0).all()
    assert (logs[active] < 0).all()
    found, entropy = policy(rows, np.zeros(50, dtype=int))
    assert (found.detach().numpy()[~active] == 0).all()
    assert (entropy.detach().numpy()[~active] == 0).all()


def test_at_first_all_options_are_equally_likely() -> None:
    rows, logs = Policy(SPACE, GOALS, seed=3).draw(0, np.random.default_rng(0).random((8, len(SPACE.decisions))))
    active = SPACE.active(rows)
    assert logs[active] == pytest.approx(np.broadcast_to(-np.log(SPACE.sizes), rows.shape)[active], abs=1e-5)
    _, entropy = Policy(SPACE, GOALS, seed=3)(rows, np.zeros(8, dtype=int))
    assert entropy.detach().numpy()[active] == pytest.approx(-logs[active], abs=1e-5)


def test_a_decision_comes_after_those_that_say_whether_it_matters() -> None:
    space = space_of({"a": 3, "b": 2, "c": 2}, [Activity("a", (When("c", frozenset({1})),))])
    assert deciding_order(space).tolist() == [1, 2, 0]
    rows, logs = Policy(space, GOALS, seed=0).draw(0, np.random.default_rng(0).random((200, 3)))
    assert (rows[rows[:, 2] == 0, 0] == 0).all()
    assert (logs[rows[:, 2] == 0, 0] == 0).all()
    assert set(rows[rows[:, 2] == 1, 0].tolist()) == {0, 1, 2}


def test_the_order_of_a_space_that_comes_with_hwnas_is_its_own() -> None:
    space = load_space("mnasnet", joint=())
    assert deciding_order(space).tolist() == list(range(len(space.decisions)))


def test_decisions_that_depend_on_each_other_are_an_error_that_names_them() -> None:
    space = space_of(
        {"a": 2, "b": 2, "c": 2},
        [Activity("a", (When("b", frozenset({1})),)), Activity("b", (When("a", frozenset({1})),))],
    )
    with pytest.raises(InvalidSpaceError, match="depends on each other: a, b"):
        deciding_order(space)


def test_the_policy_knows_a_goal_by_its_metric_its_target_and_its_exponents() -> None:
    goals = (Goal(1.0), Goal(np.e**2), Goal(7.0, "macs", STRICT))
    # latency_ms, macs; log targets 0 and 2 have mean 1 and deviation 1; α; e^β.
    expected = [[1, 0, -1, -0.07, np.exp(-0.07)], [1, 0, 1, -0.07, np.exp(-0.07)], [0, 1, 0, 0, 0]]
    assert goal_features(goals) == pytest.approx(np.array(expected))
