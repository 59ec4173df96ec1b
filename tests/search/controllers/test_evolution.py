"""Evolution for many goals at once; `tests/contracts/test_controllers.py` has what it does for one."""

from __future__ import annotations

import numpy as np

from hwnas.search import Controller, Goal, Objective, make_controller
from hwnas.search.controllers.evolution import RegularisedEvolution
from hwnas.search.front import Front
from tests.contracts.controller_contract import SPACE, hidden_row, likeness, option_sums

COST = option_sums(SPACE)
USUAL = COST(SPACE.sample(np.random.default_rng(0), 1000))["latency_ms"]


def worth_after(controller: Controller, evaluations: int, seed: int) -> float:
    hidden = hidden_row(SPACE, seed)
    for _ in range(evaluations):
        rows = controller.ask(1)
        controller.tell(rows, {"accuracy": likeness(rows, hidden)})
    return controller.objective.worth(controller.results.accuracy, controller.results.costs)


def test_each_of_a_few_goals_has_a_population_of_its_own() -> None:
    for goals, alive, first in ((1, 3, 3), (4, 12, 6), (9, 18, 6)):
        objective = Objective(COST, tuple(Goal(float(np.quantile(USUAL, 0.1 * (n + 1)))) for n in range(goals)))
        controller = RegularisedEvolution(SPACE, objective, population=3)
        rows = controller.ask(30)
        controller.tell(rows, {"accuracy": np.full(30, 0.5)})
        assert controller.population.tolist() == rows[-alive:].tolist()
        assert controller.starts is not None
        assert len(controller.starts) == first


def test_of_a_few_mutants_the_one_that_would_add_most_comes_first() -> None:
    objective = Front.of(COST, "latency_ms", USUAL)
    controller = RegularisedEvolution(SPACE, objective, population=4)
    rows = controller.ask(12)
    controller.tell(rows, {"accuracy": np.full(12, 0.5)})
    known = COST(rows)
    added = []
    for _ in range(30):
        rivals = controller.propose()[: controller.RIVALS]
        gains = [
            objective.worth(
                np.full(13, 0.5), {name: np.append(values, COST(row)[name]) for name, values in known.items()}
            )
            for row in rivals
        ]
        assert gains == sorted(gains, reverse=True)
        added.append(max(gains) > objective.worth(np.full(12, 0.5), known))
        assert not {row.tobytes() for row in rivals} & {row.tobytes() for row in rows}
    assert 0 < sum(added) < 30


def test_on_a_front_it_finds_more_than_random_search_with_twice_as_many_evaluations() -> None:
    objective = Front.of(COST, "latency_ms", USUAL)
    for seed in (0, 1):
        found = worth_after(make_controller("evolution", SPACE, objective, seed), 120, seed)
        assert found > worth_after(make_controller("random", SPACE, objective, seed), 240, seed)
