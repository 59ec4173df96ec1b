"""Every controller keeps the contract, and those that learn beat the one that does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwnas.search import make_controller
from hwnas.search.controllers.evolution import RegularisedEvolution
from hwnas.search.goal import HARD
from hwnas.spaces import load_space
from hwnas.spaces.errors import HwnasError, UnknownNameError
from hwnas.spaces.variation import mutate, sample_coherent

from .controller_contract import (
    SPACE,
    ControllerContract,
    an_objective,
    hidden_row,
    likeness,
    run_toy,
    small_space,
)

SEEDS = range(5)


class TestRandom(ControllerContract):
    name = "random"


class TestGaussianProcess(ControllerContract):
    """Compares thousands of networks for each candidate."""

    name = "gp"
    space = small_space()
    options = {"start": 4, "compared": 60}  # noqa: RUF012


class TestEvolution(ControllerContract):
    name = "evolution"


class TestEvolutionWithSmallPopulation(ControllerContract):
    """Breeds from the fifth candidate on."""

    name = "evolution"
    options = {"population": 4, "tournament": 2}  # noqa: RUF012


class TestGumbel(ControllerContract):
    name = "gumbel"


class TestDDPG(ControllerContract):
    """Acts from the fifth candidate on."""

    name = "ddpg"
    options = {"warmup": 4, "updates": 1}  # noqa: RUF012


class TestProximalPolicy(ControllerContract):
    """Draws networks decision by decision."""

    name = "ppo"
    space = small_space()


class OptunaContract(ControllerContract):
    """Optuna's samplers take long in a large space."""

    space = small_space()


class TestOptunaTPE(OptunaContract):
    name = "optuna-tpe"


class TestOptunaNSGA2(OptunaContract):
    """A population that the contract's tests have several generations of."""

    name = "optuna-nsga2"
    options = {"population": 8}  # noqa: RUF012


@pytest.mark.slow
class TestOptunaGP(OptunaContract):
    """Seconds per candidate; `tests/search/test_optuna_samplers.py` has what is quick."""

    name = "optuna-gp"


def test_evolution_finds_what_random_search_does_not() -> None:
    """The mean of its last quarter beats the best that random search finds with as many evaluations."""
    space = load_space("mbconv", input_shape=(1, 8, 8), num_classes=10)
    objective = an_objective(space)
    lost = 0
    for seed in SEEDS:
        late = run_toy(make_controller("evolution", space, objective, seed), 300, seed)[-75:]
        rows = make_controller("random", space, objective, seed).ask(300)
        found = objective.reward(likeness(rows, hidden_row(space, seed)), objective.cost(rows))
        lost += late.mean() <= found.max() + 0.02
        assert lost <= 1
        if seed == 3 and not lost:
            break  # four of five


def test_the_oldest_member_dies_whatever_its_reward() -> None:
    controller = RegularisedEvolution(SPACE, an_objective(SPACE), population=3)
    rows = controller.ask(5)
    controller.tell(rows, {"accuracy": np.array([0.9, 0.1, np.nan, 0.2, 0.3])})
    assert controller.population.tolist() == rows[[1, 3, 4]].tolist()


def test_children_descend_from_the_best_more_often_than_from_others() -> None:
    controller = RegularisedEvolution(SPACE, an_objective(SPACE), population=8, tournament=5)
    rows = controller.ask(8)
    accuracy = likeness(rows, hidden_row(SPACE, 0))
    controller.tell(rows, {"accuracy": accuracy})
    rewards = controller.objective.reward(accuracy, controller.objective.cost(rows))
    parents = [int(np.argmax([likeness(child, row)[0] for row in rows])) for child in controller.ask(80)]
    # The best of eight is among five draws in 49 % of all tournaments; the worst wins one in 33,000.
    assert 28 <= parents.count(int(np.argmax(rewards))) <= 50
    assert parents.count(int(np.argmin(rewards))) <= 2


def test_the_first_population_costs_about_the_target() -> None:
    objective = an_objective(SPACE)
    controller = RegularisedEvolution(SPACE, objective, population=16)
    drawn = sample_coherent(SPACE, np.random.default_rng(0), 500)
    first, usual = (
        np.abs(objective.cost(rows)["latency_ms"] / objective.goals[0].target - 1)
        for rows in (controller.ask(16), drawn)
    )
    assert first.max() < np.median(usual)


def test_a_mutant_that_could_not_beat_its_parent_is_not_proposed() -> None:
    """With a hard target and parents near perfection, nothing above the target can be worth a trial."""
    objective = an_objective(SPACE)
    goal = replace(objective.goals[0], exponents=HARD)
    objective = replace(objective, goals=(goal,))
    controller = RegularisedEvolution(SPACE, objective, population=4)
    rows = controller.ask(4)
    controller.tell(rows, {"accuracy": np.full(4, 0.99)})
    children = controller.ask(60)
    assert (objective.cost(rows)["latency_ms"] <= goal.target).all()
    assert objective.cost(children)["latency_ms"].max() <= goal.target / 0.99
    # Among the mutants themselves they are many.
    mutants = mutate(SPACE, np.random.default_rng(0), np.repeat(rows, 50, axis=0))
    assert np.mean(objective.cost(mutants)["latency_ms"] > goal.target / 0.99) > 0.2


def test_an_unknown_controller_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown controller 'evolutoin'; did you mean 'evolution'\?"):
        make_controller("evolutoin", SPACE, an_objective(SPACE))


def test_an_unknown_option_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"'populatoin'; did you mean 'population'\?"):
        make_controller("evolution", SPACE, an_objective(SPACE), populatoin=3)


@pytest.mark.parametrize("options", [{"population": 0}, {"population": -1}, {"tournament": 0}, {"population": "ten"}])
def test_options_that_make_no_sense_are_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(HwnasError, match=next(iter(options))) as caught:
        make_controller("evolution", SPACE, an_objective(SPACE), **options)
    assert "unknown" not in str(caught.value)
