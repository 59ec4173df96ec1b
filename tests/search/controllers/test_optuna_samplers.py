"""What the adapter of Optuna's samplers tells them, and what it takes from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from hwnas.search import Goal, Objective, make_controller
from hwnas.search.controllers.optuna_samplers import NSGA2, OptunaController
from hwnas.search.front import Front
from hwnas.spaces.errors import InvalidOptionError
from hwnas.spaces.space import Rows
from tests.contracts.controller_contract import (
    an_objective,
    hidden_row,
    likeness,
    option_sums,
    restored,
    run_toy,
    small_space,
)

SMALL = small_space()
COST = option_sums(SMALL)
PLAIN, SKIP = [0, 1, 1, 1, 0, 0], [1, 1, 1, 1, 2, 3]
"""A plain network, of which the last two decisions do not matter; one where they do."""


def a_front() -> Front:
    return Front.of(COST, "latency_ms", COST(SMALL.sample(np.random.default_rng(0), 500))["latency_ms"])


def row(*options: int) -> Rows:
    return np.array([options], dtype=np.int16)


class Scripted(OptunaController):
    """Its sampler suggests what the test says, in that order."""

    script: list[list[int]]

    def sampler(self, seed: int) -> BaseSampler:
        return Reader(self.script)


class Reader(RandomSampler):
    def __init__(self, script: list[list[int]]) -> None:
        super().__init__(seed=0)
        self.script = script

    def sample_relative(self, study: object, trial: object, search_space: object) -> dict[str, int]:
        return {d.name: option for d, option in zip(SMALL.decisions, self.script.pop(0), strict=True)}


def scripted(objective: Objective, *script: list[int]) -> Scripted:
    controller = Scripted(SMALL, objective)
    controller.script = list(script)
    return controller


def trials(controller: OptunaController) -> list[FrozenTrial]:
    return controller._storage.get_all_trials(controller._study)


def test_a_single_goal_is_one_objective_and_a_front_is_two() -> None:
    goal = Goal(target=2.0, exponents=(-1.0, -1.0))
    several = (goal, Goal(target=3.0), Goal(target=9.0, metric="macs"))
    cost = 1 + 1 / 2 + 1 / 3 + 1 / 3 + 1 / 3 + 1 + 1  # the relative options of SKIP
    for objective, values in (
        (Objective(COST, (goal,)), [0.6 * 2.0 / cost]),
        (Objective(COST, several), [0.6, cost, cost]),
        (a_front(), [0.6, cost]),
    ):
        controller = scripted(objective, SKIP)
        controller.tell(controller.ask(1), {"accuracy": np.array([0.6]), "fidelity": np.array([0.25])})
        (trial,) = trials(controller)
        assert trial.values == pytest.approx(values)
        assert trial.state == TrialState.COMPLETE


def test_a_trial_has_the_candidate_in_canonical_form() -> None:
    controller = scripted(a_front(), [*PLAIN[:4], 2, 3])
    assert controller.ask(1).tolist() == [PLAIN]
    (trial,) = trials(controller)
    assert list(trial.params.values()) == PLAIN
    assert trial.state == TrialState.RUNNING


def test_a_known_suggestion_is_one_more_trial_with_its_result_and_costs_nothing() -> None:
    controller = scripted(a_front(), PLAIN, PLAIN, [*PLAIN[:4], 1, 1], SKIP)
    controller.tell(controller.ask(1), {"accuracy": np.array([0.6])})
    assert controller.ask(1).tolist() == [SKIP]
    assert [trial.values for trial in trials(controller)] == [trials(controller)[0].values] * 3 + [None]
    assert len(controller.results) == 1


def test_with_a_single_goal_a_known_suggestion_is_passed_over() -> None:
    controller = scripted(an_objective(SMALL), PLAIN, PLAIN, SKIP)
    controller.tell(controller.ask(1), {"accuracy": np.array([0.6])})
    assert controller.ask(1).tolist() == [SKIP]
    assert len(trials(controller)) == 2


def test_what_is_being_tried_has_failed_or_is_infeasible_is_passed_over() -> None:
    large = [2, 3, 3, 3, 0, 0]
    goals = tuple(replace(goal, constraints={"macs": 4.6}) for goal in a_front().goals)
    controller = scripted(Objective(COST, goals), PLAIN, [2, 0, 0, 0, 0, 0])
    first = controller.ask(2)
    controller.tell(first[0], {"accuracy": np.array([np.nan])})
    controller.script += [large, first[0].tolist(), first[1].tolist(), SKIP]
    assert COST(row(*large))["macs"][0] == 5.0
    assert controller.ask(1).tolist() == [SKIP]
    assert [trial.state.name for trial in trials(controller)] == ["FAIL", "RUNNING", "RUNNING"]


def test_a_random_candidate_is_tried_where_no_suggestion_is_of_use() -> None:
    controller = scripted(a_front(), *[PLAIN] * (1 + OptunaController.SUGGESTIONS))
    controller.ask(1)
    assert controller.ask(1).tolist() != [PLAIN]
    assert not controller.script
    assert len(trials(controller)) == 2


def test_generations_are_of_the_population_and_know_of_candidates_that_nobody_asked_for() -> None:
    controller = make_controller("optuna-nsga2", SMALL, a_front(), population=6)
    assert isinstance(controller, NSGA2)
    hidden = hidden_row(SMALL, 0)
    others = np.unique(SMALL.sample(np.random.default_rng(0), 50), axis=0)[:6]
    controller.tell(others, {"accuracy": likeness(others, hidden)})
    rows = controller.ask(6)
    controller.tell(rows, {"accuracy": likeness(rows, hidden)})
    counts = Counter(trial.system_attrs["NSGAIISampler:generation"] for trial in trials(controller))
    assert counts[0] == 6
    assert counts[1] >= 6
    # Most options of a child are those of one parent or the other, but for a mutation now and then.
    parents = [(a, b) for i, a in enumerate(others) for b in others[:i]]
    strange = np.min([((rows != a) & (rows != b)).sum(axis=1) for a, b in parents], axis=0)
    assert np.median(strange) <= 1


@pytest.mark.parametrize("population", [1, 0, "ten"])
def test_a_population_that_makes_no_sense_is_an_error(population: object) -> None:
    with pytest.raises(InvalidOptionError, match="population"):
        make_controller("optuna-nsga2", SMALL, a_front(), population=population)


@pytest.mark.parametrize("name", ["optuna-tpe", "optuna-nsga2", "optuna-gp"])
def test_on_a_front_a_restored_controller_goes_on_as_if_nothing_had_happened(name: str) -> None:
    options = {"population": 6} if name == "optuna-nsga2" else {}
    hidden = hidden_row(SMALL, 0)
    controller = make_controller(name, SMALL, a_front(), 1, **options)
    for n in (2, 7, 7):
        rows = controller.ask(n)[1:]  # one of each is never told
        controller.tell(rows, {"accuracy": likeness(rows, hidden)})
    again = restored(controller.state_dict(), make_controller(name, SMALL, a_front(), 99, **options))
    for _ in range(2):
        rows = controller.ask(1)
        assert (again.ask(1) == rows).all()
        for one in (controller, again):
            one.tell(rows, {"accuracy": likeness(rows, hidden)})
    assert again.state_dict() == controller.state_dict()


@pytest.mark.parametrize(("name", "evaluations"), [("optuna-tpe", 40), ("optuna-nsga2", 60), ("optuna-gp", 22)])
def test_samplers_learn(name: str, evaluations: int) -> None:
    """The last half of the candidates is better than random ones."""
    options = {"population": 15} if name == "optuna-nsga2" else {}
    objective = an_objective(SMALL)
    late = run_toy(make_controller(name, SMALL, objective, 0, **options), evaluations, 0)[-evaluations // 2 :]
    usual = run_toy(make_controller("random", SMALL, objective, 0), 200, 0)
    assert late.mean() > usual.mean() + 2 * usual.std() / len(late) ** 0.5


def test_damaged_states_are_errors_that_a_search_knows() -> None:
    controller = make_controller("optuna-tpe", SMALL, a_front())
    controller.tell(controller.ask(3)[:2], {"accuracy": np.array([0.5, np.nan])})
    state = controller.state_dict()
    for damage in (
        {"trials": {}},
        {"trials": state["trials"] | {"attributes": []}},
        {"trials": state["trials"] | {"rows": state["trials"]["values"]}},
        {"attributes": None},
    ):
        with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
            restored(state | damage, make_controller("optuna-tpe", SMALL, a_front()))
