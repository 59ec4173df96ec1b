"""The controller that samples from architecture parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from hwnas.search import Goal, Objective, make_controller
from hwnas.search.controllers.gumbel import GumbelSampling
from hwnas.search.goal import COSTS, HARD, SOFT
from hwnas.search.supernet.checkpoint import save_checkpoint
from hwnas.search.supernet.cost_terms import HingeTerm
from hwnas.spaces.decision import Decision
from hwnas.spaces.errors import HwnasError, InvalidFileError
from hwnas.spaces.space import Rows, Space
from tests.contracts.controller_contract import an_objective, hidden_row, likeness, restored, run_toy
from tests.search.supernet.toys import toy_space, training


def plain_space(decisions: int = 6, options: int = 4) -> Space:
    own = [Decision(f"d{i}", tuple(range(options))) for i in range(decisions)]
    return Space(name="plain", spec={}, decisions=own, slots=[], input_shape=(1, 8, 8), num_classes=2)


class OptionCost:
    """One, and the sum of all options; with its expectation."""

    summed = COSTS

    def __call__(self, rows: Rows) -> dict[str, Any]:
        return dict.fromkeys(COSTS, 1.0 + np.atleast_2d(rows).sum(axis=1))

    def expected(self, probabilities: Sequence[Tensor], cost: str) -> Tensor:
        total = probabilities[0].new_ones(())
        for p in probabilities:
            total = total + (p * p.new_tensor(range(len(p)))).sum()
        return total


def test_samples_follow_the_given_logits() -> None:
    space = plain_space()
    logits = np.zeros((1, 24))
    logits[0, ::4] = 2.0
    controller = make_controller("gumbel", space, an_objective(space), logits=logits.tolist())
    rows = controller.ask(300)
    share = np.exp(2) / (np.exp(2) + 3)
    assert controller.probabilities()[0, 0] == pytest.approx(share)  # type: ignore[attr-defined]
    assert 0.6 * share < (rows == 0).mean() < share  # less, since no candidate is asked twice


def test_a_supernet_s_parameters_are_taken_from_its_checkpoint(tmp_path: Path) -> None:
    made = training(terms=[HingeTerm("latency_ms", target) for target in (3.0, 4.0)])
    for theta, value in zip(made.thetas, (1.0, -1.0), strict=True):
        theta.logits.data[0] = value
    save_checkpoint(made, tmp_path / "supernet.safetensors")
    space = toy_space()
    objective = Objective(OptionCost(), (Goal(3.0), Goal(4.0)))
    options = {"logits": str(tmp_path / "supernet.safetensors")}
    controller = make_controller("gumbel", space, objective, **options)
    assert controller.logits[:, 0].tolist() == [1.0, -1.0]  # type: ignore[attr-defined]
    again = restored(controller.state_dict(), make_controller("gumbel", space, objective, seed=5))
    assert (again.ask(3) == controller.ask(3)).all()
    with pytest.raises(HwnasError, match=r"shape \(1, 6\)"):
        make_controller("gumbel", space, Objective(OptionCost(), (Goal(3.0),)), **options)
    with pytest.raises(InvalidFileError, match="no checkpoint of a supernet"):
        make_controller("gumbel", space, objective, logits=str(tmp_path / "none"))


def test_the_gradient_is_that_of_the_weighted_mean_by_finite_differences() -> None:
    """Of 27 results with their weights held fixed, and of the exact cost: Σ w̄ (R − R̄) log p / R̄ + w log E[cost]."""
    space = plain_space(3, 3)
    bounds = {"macs": 2.5, "params": 100.0}  # the first is broken, the second met
    goals = (Goal(2.0, exponents=HARD), Goal(50.0, exponents=SOFT), Goal(50.0, exponents=SOFT, constraints=bounds))
    controller = GumbelSampling(space, Objective(OptionCost(), goals), entropy=0)
    controller.logits = np.random.default_rng(0).normal(size=(3, 9))
    rows = np.array(list(np.ndindex(3, 3, 3)), dtype=np.int16)
    accuracy = np.random.default_rng(1).uniform(0.2, 0.9, 27)
    chosen = np.eye(3)[rows].reshape(27, 9)

    def log_probability(logits: Any) -> Any:
        parts = logits.reshape(3, 3)
        return chosen @ (parts - np.log(np.exp(parts).sum(1, keepdims=True))).ravel()

    def expected(logits: Any) -> float:
        p = np.exp(log_probability(logits))
        return float((p * (1 + rows.sum(1))).sum())

    found = controller._gradient(chosen, np.stack([accuracy, accuracy, accuracy]))
    assert expected(controller.logits[2]) > 2.5
    for goal, exponent in ((0, -1.0), (1, -0.07), (2, -1.07)):
        own = controller.logits[goal]
        weights = np.exp(log_probability(own) / 3**0.5)
        weights /= weights.sum()
        mean = weights @ accuracy

        def value(logits: Any, w: Any = weights, m: float = mean, e: float = exponent) -> float:
            return float(w * (accuracy - m) @ log_probability(logits) / m + e * np.log(expected(logits)))

        for option in range(9):
            step = np.eye(9)[option] * 1e-5
            assert found[goal, option] == pytest.approx((value(own + step) - value(own - step)) / 2e-5, abs=1e-7)


def test_each_goal_has_parameters_of_its_own_and_learns_from_every_result() -> None:
    """What is sampled for a tight target costs less, though accuracy is to be had at the highest cost alone."""
    space = plain_space()
    objective = Objective(OptionCost(), (Goal(4.0, exponents=HARD), Goal(14.0, exponents=HARD)))
    controller = GumbelSampling(space, objective)
    hidden = np.full(6, 3)
    for _ in range(100):
        rows = controller.ask(1)
        controller.tell(rows, {"accuracy": 0.1 + likeness(rows, hidden)})
    expected = 1 + (controller.probabilities() * np.tile(np.arange(4), 6)).sum(axis=1)
    assert expected[0] < expected[1] - 4


def test_it_finds_what_random_search_does_not() -> None:
    """The mean of its last quarter beats the mean of random draws by far, with and without an expected cost."""
    space = plain_space(8, 4)
    for objective in (an_objective(space), Objective(OptionCost(), (Goal(13.0),))):
        hidden = hidden_row(space, 0)
        late = run_toy(GumbelSampling(space, objective), 200, 0)[-50:]
        rows = space.sample(np.random.default_rng(0), 1000)
        usual = objective.reward(likeness(rows, hidden), objective.cost(rows))
        assert late.mean() > usual.mean() + 2 * usual.std()


def test_without_steps_it_stays_with_what_it_was_given() -> None:
    space = plain_space()
    controller = GumbelSampling(space, an_objective(space), steps=0)
    rows = controller.ask(20)
    controller.tell(rows, {"accuracy": np.linspace(0, 1, 20)})
    assert not controller.logits.any()


@pytest.mark.parametrize(
    "options",
    [{"learning_rate": 0}, {"steps": -1}, {"entropy": -0.1}, {"logits": [[0.0]]}, {"logits": [[float("nan")] * 24]}],
)
def test_options_that_make_no_sense_are_an_error(options: dict[str, Any]) -> None:
    space = plain_space()
    with pytest.raises(HwnasError, match=f"{next(iter(options))} of controller 'gumbel'"):
        make_controller("gumbel", space, an_objective(space), **options)
