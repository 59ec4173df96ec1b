"""What every controller must keep: one suite, run for each controller by `test_controllers`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from hwnas.search import Controller, Goal, Objective, make_controller
from hwnas.search.goal import COSTS
from hwnas.spaces import Space, load_space
from hwnas.spaces.canonical import Activity
from hwnas.spaces.decision import Decision
from hwnas.spaces.errors import InfeasibleError, UnknownNameError
from hwnas.spaces.slot import When
from hwnas.spaces.space import Rows

SPACE = load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=("rank",))
PLAIN = load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=())
"""What the contract searches: with it candidates of a search's start are found in half the time."""
TINY_NETWORKS = 2 + 2 * 2 * 2
"""Networks of `tiny_space`: ``c`` does not matter for the first option of ``a``."""

Costs = dict[str, NDArray[np.float64]]


def tiny_space() -> Space:
    return Space(
        name="tiny",
        spec={"name": "tiny"},
        decisions=[Decision("a", (1, 2, 3)), Decision("b", (1, 2)), Decision("c", (1, 2))],
        slots=[],
        input_shape=(1, 8, 8),
        num_classes=2,
        activities=[Activity("c", (When("a", frozenset({2, 3})),))],
    )


def small_space() -> Space:
    """896 networks, and a category among the decisions."""
    return Space(
        name="small",
        spec={"name": "small"},
        decisions=[
            Decision("kind", ("plain", "skip", "dense"), ordinal=False),
            *(Decision(name, (1, 2, 3, 4)) for name in ("width", "depth", "kernel")),
            Decision("skip.kind", ("add", "mix", "join"), ordinal=False),
            Decision("skip.width", (1, 2, 3, 4)),
        ],
        slots=[],
        input_shape=(1, 8, 8),
        num_classes=2,
        activities=[Activity(name, (When("kind", frozenset({"skip"})),)) for name in ("skip.kind", "skip.width")],
    )


def option_sums(space: Space) -> Callable[[Rows], Costs]:
    """A made-up cost: one for the network, and the sum of its relative options."""

    def cost(rows: Rows) -> Costs:
        total = 1 + (np.atleast_2d(rows) / np.maximum(1, space.sizes - 1)).sum(axis=1)
        return dict.fromkeys(COSTS, total)

    return cost


def an_objective(space: Space, constraints: Mapping[str, float] | None = None) -> Objective:
    """The target is what half of all candidates cost at most."""
    cost = option_sums(space)
    target = float(np.median(cost(space.sample(np.random.default_rng(0), 1000))["latency_ms"]))
    return Objective(cost, (Goal(target, constraints=constraints or {}),))


def hidden_row(space: Space, seed: int) -> Rows:
    """What a toy search looks for. Shape (decisions,)."""
    return space.sample(np.random.default_rng(1000 + seed), 1)[0]


def likeness(rows: Rows, hidden: Rows) -> NDArray[np.float64]:
    """The toy's accuracy, shape (n,): the share of decisions that are as in the hidden row."""
    return np.asarray((np.atleast_2d(rows) == hidden).mean(axis=1), dtype=np.float64)


def run_toy(controller: Controller, evaluations: int, seed: int) -> NDArray[np.float64]:
    """The rewards of candidates asked for and told one by one, shape (evaluations,)."""
    hidden = hidden_row(controller.space, seed)
    rewards = []
    for _ in range(evaluations):
        rows = controller.ask(1)
        accuracy = likeness(rows, hidden)
        controller.tell(rows, {"accuracy": accuracy})
        rewards.append(controller.objective.reward(accuracy, controller.objective.cost(rows))[0])
    return np.array(rewards)


def restored(state: Mapping[str, Any], fresh: Controller) -> Controller:
    """A controller with the state that another one left, as it comes back from a file."""
    fresh.load_state_dict(json.loads(json.dumps(state)))
    return fresh


class ControllerContract:
    """Subclasses name a controller and its options, and a smaller space where it is slow."""

    name: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}
    space: ClassVar[Space] = PLAIN

    def make(self, space: Space | None = None, seed: int = 0, objective: Objective | None = None) -> Controller:
        space = space or self.space
        return make_controller(self.name, space, objective or an_objective(space), seed, **self.options)

    def test_candidates_are_canonical_and_distinct_however_they_are_asked_for(self) -> None:
        controller = self.make()
        hidden = hidden_row(self.space, 0)
        asked = [controller.ask(25)]
        for n in (1, 7, 0, 20):
            controller.tell(asked[-1], {"accuracy": likeness(asked[-1], hidden)})
            asked.append(controller.ask(n))
            assert asked[-1].shape == (n, len(self.space.decisions))
            assert asked[-1].dtype == np.int16
        rows = np.concatenate(asked)
        assert (rows == self.space.canonical(rows)).all()
        assert len(np.unique(rows, axis=0)) == 25 + 1 + 7 + 20

    def test_candidates_meet_all_constraints(self) -> None:
        cost = option_sums(self.space)
        sums = cost(self.space.sample(np.random.default_rng(0), 2000))["macs"]
        bound = float(np.quantile(sums, 0.2))
        controller = self.make(objective=an_objective(self.space, {"macs": bound, "weight_bytes": 2 * bound}))
        hidden = hidden_row(self.space, 0)
        for _ in range(4):
            rows = controller.ask(12)
            assert (cost(rows)["macs"] <= bound).all()
            controller.tell(rows, {"accuracy": likeness(rows, hidden)})

    def test_constraints_that_no_random_candidate_meets_are_met(self) -> None:
        decisions = [Decision(f"d{i}", (1, 2, 3, 4)) for i in range(24)]
        space = Space(name="wide", spec={}, decisions=decisions, slots=[], input_shape=(1, 8, 8), num_classes=2)
        cost = option_sums(space)
        drawn = cost(space.sample(np.random.default_rng(0), 5000))["macs"]
        assert drawn.min() > 5
        objective = Objective(cost, (Goal(5.0, constraints={"macs": 4.0}),))
        controller = self.make(space, objective=objective)
        hidden = hidden_row(space, 0)
        for _ in range(12):
            rows = controller.ask(2)
            assert (cost(rows)["macs"] <= 4).all()
            controller.tell(rows, {"accuracy": likeness(rows, hidden)})
        assert (restored(controller.state_dict(), self.make(space, 7, objective)).ask(3) == controller.ask(3)).all()

    def test_networks_for_several_places_each_have_constraints_of_their_own(self) -> None:
        """There, what is cheap here is dear."""
        here = option_sums(self.space)

        def cost(rows: Rows) -> Costs:
            costs = here(rows)
            return {**costs, **{f"there:{name}": 4 / values for name, values in costs.items()}}

        drawn = cost(self.space.sample(np.random.default_rng(0), 2000))
        bounds = {name: float(np.quantile(drawn[name], 0.2)) for name in ("macs", "there:macs")}
        goals = (
            Goal(2 * bounds["macs"], constraints={"macs": bounds["macs"]}),
            Goal(2 * bounds["there:macs"], constraints={"macs": bounds["there:macs"]}).on("there"),
        )
        controller = self.make(objective=Objective(cost, goals))
        hidden = hidden_row(self.space, 0)
        served = np.zeros(2)
        for _ in range(4):
            rows = controller.ask(6)
            meets = np.array([goal.meets(cost(rows)) for goal in goals])
            assert meets.any(axis=0).all()
            served += meets.sum(axis=1)
            controller.tell(rows, {"accuracy": likeness(rows, hidden)})
        assert served.min() > 0

    def test_a_small_space_is_exhausted_without_a_repetition(self) -> None:
        space = tiny_space()
        controller = self.make(space)
        found = []
        for _ in range(TINY_NETWORKS):
            found.append(controller.ask(1)[0])
            controller.tell(found[-1][None], {"accuracy": np.array([0.5])})
        assert len({space.decode(row).digest for row in found}) == TINY_NETWORKS
        with pytest.raises(InfeasibleError, match="no new candidate"):
            controller.ask(1)

    def test_more_than_a_small_space_holds_may_not_be_asked_for_before_telling_either(self) -> None:
        space = tiny_space()
        controller = self.make(space)
        assert len(np.unique(controller.ask(TINY_NETWORKS), axis=0)) == TINY_NETWORKS
        with pytest.raises(InfeasibleError):
            controller.ask(1)

    def test_candidates_that_others_evaluated_are_not_proposed(self) -> None:
        space = tiny_space()
        controller = self.make(space)
        told = np.unique(space.sample(np.random.default_rng(0), 200), axis=0)[:6]
        controller.tell(told, {"accuracy": np.full(6, 0.5)})
        rest = controller.ask(TINY_NETWORKS - 6)
        assert len(np.unique(np.concatenate([told, rest]), axis=0)) == TINY_NETWORKS

    def test_constraints_that_nothing_meets_are_an_error_that_names_them(self) -> None:
        controller = self.make(objective=an_objective(self.space, {"params": 0.5}))
        with pytest.raises(InfeasibleError, match=r"params.*0\.5.*loosen the constraints"):
            controller.ask(1)

    def test_results_may_come_in_any_order_and_in_any_portions(self) -> None:
        controller = self.make()
        rows = controller.ask(30)
        accuracy = likeness(rows, hidden_row(self.space, 0))
        state = controller.state_dict()
        at_once, one_by_one = restored(state, self.make()), restored(state, self.make())
        order = np.random.default_rng(0).permutation(30)
        at_once.tell(rows[order], {"accuracy": accuracy[order]})
        for i in order:
            one_by_one.tell(rows[i], {"accuracy": accuracy[i]})  # type: ignore[dict-item]
        assert at_once.state_dict() == one_by_one.state_dict()
        assert (at_once.ask(5) == one_by_one.ask(5)).all()

    def test_measured_costs_count_instead_of_predicted_ones(self) -> None:
        controller = self.make()
        rows = controller.ask(3)
        name = controller.objective.goals[0].metric
        known = controller.objective.cost(rows)[name] * [1, 2, 1]
        accuracy = np.array([0.25, 0.5, 0.75])
        controller.tell(rows, {"accuracy": accuracy, name: np.array([np.nan, known[1], np.nan])})
        again = restored(controller.state_dict(), self.make())
        for one in (controller, again):
            assert one.results.costs[name].tolist() == known.tolist()
        assert (again.ask(2) == controller.ask(2)).all()
        with pytest.raises(UnknownNameError, match="'laziness'"):
            controller.tell(rows, {"accuracy": accuracy, "laziness": accuracy})

    def test_failed_trials_are_accepted_and_not_proposed_again(self) -> None:
        space = tiny_space()
        controller = self.make(space)
        rows = controller.ask(4)
        controller.tell(rows, {"accuracy": np.array([np.nan, 0.5, np.nan, 0.25])})
        rest = controller.ask(TINY_NETWORKS - 4)
        assert len(np.unique(np.concatenate([rows, rest]), axis=0)) == TINY_NETWORKS

    def test_a_search_in_which_every_trial_fails_goes_on(self) -> None:
        controller = self.make()
        for _ in range(10):
            rows = controller.ask(4)
            controller.tell(rows, {"accuracy": np.full(4, np.nan)})
        assert controller.ask(3).shape == (3, len(self.space.decisions))

    def test_the_seed_decides_everything(self) -> None:
        first, same, other = (run_toy(self.make(seed=seed), 20, 0) for seed in (3, 3, 4))
        assert (first == same).all()
        assert (first != other).any()

    @pytest.mark.parametrize("before", [0, 1, 13, 40])
    def test_a_restored_controller_goes_on_as_if_nothing_had_happened(self, before: int) -> None:
        hidden = hidden_row(self.space, 0)
        controller = self.make(seed=1)
        controller.ask(2)  # never told
        for _ in range(before):
            rows = controller.ask(1)
            controller.tell(rows, {"accuracy": likeness(rows, hidden)})
        text = json.dumps(controller.state_dict())
        again = self.make(seed=99)
        again.load_state_dict(json.loads(text))
        for _ in range(10):
            rows = controller.ask(2)
            assert (again.ask(2) == rows).all()
            for one in (controller, again):
                one.tell(rows[::-1], {"accuracy": likeness(rows[::-1], hidden)})
        assert json.dumps(again.state_dict()) == json.dumps(controller.state_dict())

    def test_an_option_that_does_not_exist_is_an_error_that_names_it(self) -> None:
        with pytest.raises(UnknownNameError, match=rf"option of controller '{self.name}': 'populatoin'"):
            make_controller(self.name, self.space, an_objective(self.space), populatoin=3)
