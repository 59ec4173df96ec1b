"""HAQ's agent: what it sees, how its actions become options, the wall, and what it learns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from hwnas.search import Goal, Objective, make_controller
from hwnas.search.controllers.ddpg.actor_critic import ActorCritic, Batch
from hwnas.search.controllers.ddpg.budget import budget, lower, strain
from hwnas.search.controllers.ddpg.ddpg import truncated_normal
from hwnas.search.controllers.ddpg.goal_states import GoalStates
from hwnas.search.controllers.ddpg.layer_states import LayerStates, to_actions, to_ranks
from hwnas.search.controllers.ddpg.layers import layers_of
from hwnas.search.controllers.ddpg.option_costs import OptionCosts
from hwnas.search.controllers.ddpg.replay import Replay
from hwnas.search.goal import COSTS, HARD, SOFT, STRICT, Costs
from hwnas.spaces import Space
from hwnas.spaces.canonical import Activity
from hwnas.spaces.decision import Decision
from hwnas.spaces.errors import InvalidOptionError
from hwnas.spaces.operator import Operator
from hwnas.spaces.slot import Slot, When
from hwnas.spaces.space import Rows
from tests.search.fixtures import bare_space, digits_cost, digits_space

GAINS = np.array([5.0, 1.0, 4.0, 1.0, 3.0, 1.0])
WEIGHTS = np.array([1.0, 5.0, 2.0, 4.0, 1.0, 5.0])
"""Of six layers: how much accuracy a bit buys, and what it weighs."""


def stem(group: str, width: int) -> tuple[Operator, ...]:
    return (Operator("conv", 3, width, (8, 8), (8, 8), kernel=3),)


def depthwise(group: str, width: int, bits: int) -> tuple[Operator, ...]:
    return (Operator("conv", width, width, (8, 8), (4, 4), kernel=3, stride=2, groups=width, weight_bits=bits),)


def two_layers() -> Space:
    decisions = [
        Decision("stem.width", (8, 16)),
        Decision("stem.op", ("add", "cat"), False),
        Decision("body.bits", (4, 8, 32)),
    ]
    return Space(
        name="two", spec={}, decisions=decisions, input_shape=(3, 8, 8), num_classes=2,
        slots=[Slot("stem", ("stem.width",), stem), Slot("body.conv", ("stem.width", "body.bits"), depthwise)],
        activities=[Activity("body.bits", (When("stem.op", frozenset({"add"})),))],
    )  # fmt: skip


def product_cost(rows: Rows) -> Costs:
    """Twice as much for the wider stem, eight times for "add", and as much as there are bits."""
    rows = np.atleast_2d(rows)
    total = 2.0 ** (rows[:, 0] + 3 * (rows[:, 1] == 0)) * np.array([4, 8, 32])[rows[:, 2]]
    return dict.fromkeys(COSTS, total)


def test_decisions_of_a_layer_are_grouped_by_name() -> None:
    layers = layers_of(two_layers())
    assert [(layer.name, layer.columns, layer.dimensions) for layer in layers] == [
        ("stem", (0, 1), (0, 1)), ("body", (2,), (2,)),
    ]  # fmt: skip


def test_a_decision_that_depends_on_one_of_its_layer_comes_after_it() -> None:
    space = Space(
        name="dependent", spec={}, slots=[], input_shape=(3, 8, 8), num_classes=2,
        decisions=[Decision("s1.depth", (1, 2)), Decision("s1.kernel", (3, 5)), Decision("s2.kernel", (3, 5))],
        activities=[Activity("s1.kernel", (When("s1.depth", frozenset({2})),))],
    )  # fmt: skip
    assert [(layer.columns, layer.dimensions) for layer in layers_of(space)] == [
        ((0,), (0,)),
        ((1,), (1,)),
        ((2,), (1,)),
    ]


def test_states_are_as_counted_by_hand() -> None:
    space = two_layers()
    options = OptionCosts(space, product_cost, ("latency_ms",))
    found = LayerStates(space, options).retrace(np.array([[0, 0, 1], [1, 1, 0]], dtype=np.int16))
    # Index; depthwise, channels in and out, stride, kernel (always 3), weights, positions (always 64); which of width,
    # op and bits there are to choose; the last actions; steps above the first option of width, op and bits (two).
    # Channels in are 3 to 16, out 8 to 16, weights 72 (8 · 9) to 432 (3 · 16 · 9).
    operator = [0, 0, 1, 0, 0, 1, 0]  # the stem of 16 channels: what is undecided has its last rank
    assert found.states[:, 0] == pytest.approx(np.array([[0, *operator, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]] * 2))
    # "cat" costs less, so it has the first rank, and "add" the second.
    assert found.states[0, 1] == pytest.approx(
        [1, 1, 5 / 13, 0, 1, 0, 0, 0, 0, 0, 1, 0.25, 0.75, 0, 0, 1, 0, 0], abs=1e-6
    )
    assert found.states[1, 1] == pytest.approx(
        [1, 1, 1, 1, 1, 0, 72 / 360, 0, 0, 0, 0, 0.75, 0.25, 0, 1, 0, 0, 0], abs=1e-6
    )
    assert found.choices.tolist() == [[[2, 2, 0], [0, 0, 3]], [[2, 2, 0], [0, 0, 0]]]
    assert found.actions == pytest.approx(np.array([[[0.25, 0.75, 0], [0, 0, 0.5]], [[0.75, 0.25, 0], [0, 0, 0]]]))
    assert found.ranks.tolist() == [[0, 1, 1], [1, 0, 0]]


def test_forecasts_are_exact_where_options_multiply() -> None:
    space = bare_space(2, 3)
    own = np.array([[1.0, 2.0, 0.0], [3.0, 4.0, 8.0]])

    def cost(rows: Rows) -> Costs:
        return {"latency_ms": own[0, rows[:, 0]] * own[1, rows[:, 1]]}

    options = OptionCosts(space, cost, ("latency_ms",))
    chosen = options.effects[0, 1, 0] + options.effects[1, 2, 0]
    means = np.log([2]).sum() / 2 + np.log([3, 4, 8]).mean()
    assert chosen + means == pytest.approx(np.log(2 * 8))
    states = LayerStates(space, options)
    forecasts = states.retrace(np.array([[1, 2]], dtype=np.int16)).forecasts[0, :, 0]
    assert forecasts[1] - forecasts[0] == pytest.approx(np.log(2) / 2)
    assert forecasts[0] == options.level


def test_a_state_tells_the_goal_and_its_budget() -> None:
    goals = tuple(Goal(target, constraints={"params": 8.0}) for target in (1.0, 4.0, 2.0))
    states = GoalStates(Objective(product_cost, goals))
    assert states.metrics == ("latency_ms", "params")
    forecasts = np.log([[2.0, 4.0], [2.0, 4.0], [2.0, 32.0]])
    found = states.extend(np.zeros((3, 1), np.float32), forecasts, np.array([0, 1, 2]))
    # The tightest bound is the first target (2 / 1), half of the second (2 / 4) and of the constraint alike, and four
    # times the constraint.
    assert found == pytest.approx(
        np.array([[0, np.log(2), 0, 1, 0], [0, np.log(0.5), 1, 1, 0], [0, np.log(4), 0.5, 1, 0]]), abs=1e-6
    )


def test_options_have_equal_shares_of_an_action_to_the_borders() -> None:
    sizes = np.array([4])
    actions = np.array([[0.0], [0.2499], [0.2501], [0.4999], [0.5001], [0.75], [0.9999], [1.0]], dtype=np.float32)
    assert to_ranks(actions, sizes).ravel().tolist() == [0, 0, 1, 1, 2, 3, 3, 3]
    for n in range(1, 20):
        ranks = np.arange(n, dtype=np.int16)
        assert (to_ranks(to_actions(ranks, np.array(n)), np.array(n)) == ranks).all()


def test_noise_is_normal_within_the_limits() -> None:
    uniform = np.random.default_rng(0).random(20_000)
    drawn = truncated_normal(uniform, np.full(20_000, 0.9, np.float32), 0.5)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    normal = np.random.default_rng(1).normal(0.9, 0.5, 100_000)
    kept = normal[(normal >= 0) & (normal <= 1)]
    assert np.quantile(drawn, [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(kept, [0.1, 0.5, 0.9]), abs=0.015)
    assert np.abs(truncated_normal(uniform, np.full(20_000, 0.3, np.float32), 0.02) - 0.3).max() < 0.1


def lowered_one_by_one(
    row: Rows, active: Callable[[Rows], np.ndarray[Any, Any]], strained: Callable[..., np.ndarray[Any, Any]]
) -> Rows:
    """What `lower` does, said slowly."""
    row = row.copy()

    def less(column: int) -> float:
        changed = row.copy()
        changed[column] -= 1
        return float(strained(changed[None])[0])

    while (now := float(strained(row[None])[0])) > 1:
        may = [c for c in reversed(range(len(row))) if active(row[None])[0, c] and row[c] > 0]
        alone = {c: less(c) for c in may}
        sweep = [c for c in may if alone[c] < now] or [c for c in may if alone[c] <= now]
        if not sweep:
            break
        for column in sweep:
            row[column] -= 1
            if strained(row[None])[0] <= 1:
                break
    return row


def test_the_wall_keeps_every_budget_and_lowers_one_by_one_from_the_last() -> None:
    space, cost = digits_space(), digits_cost()
    rng = np.random.default_rng(0)
    costs = cost(space.sample(rng, 500))
    bounds = {name: float(np.quantile(costs[name], 0.15)) for name in ("latency_ms", "weight_bytes")}

    def strained(ranks: Rows, of: object = None) -> np.ndarray[Any, Any]:
        return strain(cost(space.canonical(ranks)), [bounds] * len(ranks))

    ranks = np.concatenate([space.sample(rng, 10), np.zeros((2, len(space.decisions)), dtype=np.int16)])
    before = strained(ranks)
    found, kept = lower(ranks, space.active, strained)
    assert kept.all()
    assert (strained(found) <= 1).all()
    assert (found <= ranks).all()
    assert (before[-2:] <= 1).all()
    assert (before > 1).sum() > 5
    assert (found[before <= 1] == ranks[before <= 1]).all()
    for row, own in zip(ranks[:4], found[:4], strict=True):
        assert (lowered_one_by_one(row, space.active, strained) == own).all()


def test_what_the_wall_cannot_keep_it_says() -> None:
    def strained(ranks: Rows, of: object = None) -> np.ndarray[Any, Any]:
        return np.asarray(2.0 + ranks.sum(axis=1))

    found, kept = lower(np.array([[1, 2]], dtype=np.int16), lambda ranks: np.ones_like(ranks, dtype=bool), strained)
    assert found.tolist() == [[0, 0]]
    assert not kept.any()


def test_lowering_what_costs_more_is_left_out() -> None:
    """The lowest rank of the second decision is dear, as emulated bits are."""

    def strained(ranks: Rows, of: object = None) -> np.ndarray[Any, Any]:
        return np.asarray(ranks[:, 0] + np.array([9.0, 0.5, 1.0])[ranks[:, 1]])

    found, kept = lower(np.array([[3, 2]], dtype=np.int16), lambda ranks: np.ones_like(ranks, dtype=bool), strained)
    assert found.tolist() == [[0, 1]]
    assert kept.all()


@pytest.mark.parametrize(("exponents", "bound"), [(SOFT, 7.0), (HARD, 3.0), (STRICT, 3.0)])
def test_only_hard_targets_are_budgets(exponents: tuple[float, float], bound: float) -> None:
    goal = Goal(3.0, exponents=exponents, constraints={"latency_ms": 7.0, "params": 2.0})
    assert budget(goal) == {"latency_ms": bound, "params": 2.0}


def bits_space() -> Space:
    decisions = [Decision(f"layer{i}.bits", tuple(range(2, 9))) for i in range(len(GAINS))]
    return Space(name="bits", spec={}, decisions=decisions, slots=[], input_shape=(3, 8, 8), num_classes=2)


def size(rows: Rows) -> Costs:
    return dict.fromkeys(COSTS, ((rows + 2) * WEIGHTS).sum(axis=1))


def gain(rows: Rows) -> np.ndarray[Any, Any]:
    return np.asarray(((rows + 2) * GAINS).sum(axis=1) / (8 * GAINS.sum()))


def test_the_agent_beats_uniform_bits_of_equal_size() -> None:
    space = bits_space()
    uniform = np.full((1, len(GAINS)), 2, dtype=np.int16)  # 4 bits
    target = float(size(uniform)["weight_bytes"][0])
    objective = Objective(size, (Goal(target, "weight_bytes", STRICT),))
    controller = make_controller("ddpg", space, objective, warmup=10)
    for _ in range(60):
        rows = controller.ask(1)
        controller.tell(rows, {"accuracy": gain(rows)})
    assert (size(controller.results.rows)["weight_bytes"] <= target).all()
    # Uniform bits reach 0.5, and 0.875 is the best: 8 bits for the three light layers, and 5 for the next.
    assert gain(uniform) == pytest.approx(0.5)
    assert controller.results.accuracy[-20:].mean() > 0.7
    assert controller.results.accuracy[-20:].mean() > controller.results.accuracy[:10].mean() + 0.1


def test_a_result_teaches_for_each_goal_whose_budget_it_keeps() -> None:
    space = two_layers()
    objective = Objective(product_cost, (Goal(8.0, exponents=STRICT), Goal(100.0, exponents=STRICT)))
    goals = GoalStates(objective)
    layers = LayerStates(space, OptionCosts(space, product_cost, goals.metrics))
    replay = Replay(objective, goals)
    rows = np.array([[0, 1, 0], [1, 0, 0]], dtype=np.int16)  # 4 for one layer with a choice, and 64 for both
    replay.add(layers.retrace(rows), np.array([0.2, 0.8]), product_cost(rows))
    # Three rewards count: 0.2 for both goals and 0.8 for the second, of mean 0.4 and standard deviation 0.08 ** 0.5.
    assert (replay.mean, replay.spread) == pytest.approx((0.4, 0.08**0.5))
    batch = replay.draw(np.random.default_rng(0), 600)
    assert np.unique(batch.rewards) == pytest.approx([-(0.5**0.5), 2**0.5])
    loose = batch.states[:, layers.width + 1] == 1  # which goal it is, see `GoalStates`
    dear = batch.rewards > 0
    assert dear.mean() == pytest.approx(2 / 3, abs=0.06)
    assert loose[dear].all()
    assert loose[~dear].mean() == pytest.approx(0.5, abs=0.12)


def test_the_actor_follows_the_critic_as_far_as_it_knows() -> None:
    agent = ActorCritic(1, 2, 6, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    states, choices = np.zeros((64, 1), np.float32), np.full((64, 2), 7, np.int16)
    for _ in range(150):
        ranks = rng.integers(2, 5, size=(64, 2))
        agent.update(Batch(states, choices, to_actions(ranks, np.array([7, 7])), (ranks @ [1, -1]).astype(np.float32)))
    up, down = agent.act(states)[0]
    assert 0.6 < up < 0.95  # ranks of 2 to 4 are actions of 0.36 to 0.64: no further from them than they tell
    assert 0.05 < down < 0.4
    values = agent.value(states[:3], choices[:3], to_actions(np.array([[2, 4], [3, 3], [4, 2]]), np.array([7, 7])))
    assert values == pytest.approx([-2, 0, 2], abs=0.3)


def test_the_actor_stays_near_what_was_done_where_nothing_is_better() -> None:
    agent = ActorCritic(1, 2, 6, np.random.default_rng(0))
    states, choices = np.zeros((64, 1), np.float32), np.full((64, 2), 7, np.int16)
    actions = to_actions(np.tile(np.array([1, 4], np.int16), (64, 1)), np.array([7, 7]))
    for _ in range(150):
        agent.update(Batch(states, choices, actions, np.zeros(64, np.float32)))
    assert agent.act(states)[0] == pytest.approx([1.5 / 7, 4.5 / 7], abs=0.03)


def restored_error(state: Mapping[str, Any]) -> Exception | None:
    objective = Objective(product_cost, (Goal(16.0),))
    try:
        make_controller("ddpg", two_layers(), objective, warmup=2).load_state_dict(state)
    except Exception as error:
        return error
    return None


def test_a_damaged_state_is_an_error() -> None:
    objective = Objective(product_cost, (Goal(16.0),))
    controller = make_controller("ddpg", two_layers(), objective, warmup=2)
    for _ in range(4):
        rows = controller.ask(1)
        controller.tell(rows, {"accuracy": np.array([0.5])})
    state = controller.state_dict()
    assert restored_error(state) is None
    for damage in (
        lambda s: s.pop("agent"),
        lambda s: s["agent"]["networks"]["actor"].pop("0.bias"),
        lambda s: s["agent"]["optimisers"]["critic"].update({"0.step": {"type": "<f4", "shape": [1], "data": ""}}),
        lambda s: s["agent"]["networks"]["critic"]["0.weight"].update(data="AAAA"),
        lambda s: s["starts"].update(shape=[1, 1]),
        lambda s: s.update(agent=3),
    ):
        copy = json.loads(json.dumps(state))
        damage(copy)
        assert isinstance(restored_error(copy), ValueError | KeyError | TypeError | AttributeError)


@pytest.mark.parametrize("options", [{"warmup": 0}, {"updates": 0}, {"updates": 1.5}, {"warmup": "ten"}])
def test_options_that_make_no_sense_are_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError, match=next(iter(options))):
        make_controller("ddpg", bits_space(), Objective(size, (Goal(16.0),)), **options)
