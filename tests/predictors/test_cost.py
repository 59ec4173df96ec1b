"""Costs gathered from slot tables against costs added up operator by operator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from hwnas.predictors import CostModel
from hwnas.predictors.slot_tables import CHUNK
from hwnas.spaces import Space
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.space import Rows
from hwnas.spaces.variation import sample_coherent

from .synthetic import digits_space, planted_ms, synthetic_device


@pytest.fixture(scope="module")
def full() -> CostModel:
    space = digits_space()
    return CostModel(space, synthetic_device(space))


@pytest.fixture(scope="module")
def plain() -> CostModel:
    space = digits_space(())
    return CostModel(space, synthetic_device(space, 100))


def drawn(space: Space, n: int, seed: int = 3) -> Rows:
    rng = np.random.default_rng(seed)
    return np.concatenate([space.sample(rng, n // 2), sample_coherent(space, rng, n - n // 2)])


@pytest.mark.parametrize("which", ["full", "plain"])
def test_slot_tables_add_up_to_the_operators(which: str, request: pytest.FixtureRequest) -> None:
    cost: CostModel = request.getfixturevalue(which)
    rows = drawn(cost.space, 120)
    costs = cost(rows)
    workloads = [cost.space.workload_of_row(row) for row in rows]
    assert np.array_equal(costs["macs"], [w.macs for w in workloads])
    assert np.array_equal(costs["params"], [w.params for w in workloads])
    assert np.array_equal(costs["weight_bytes"], [w.weight_bytes for w in workloads])
    assert np.array_equal(costs["peak_memory_bytes"], [w.peak_memory_bytes for w in workloads])
    model = cost.latency
    expected = [model.of_operators(w.operators).sum() + model.per_network for w in workloads]
    assert costs["latency_ms"] == pytest.approx(np.array(expected), rel=1e-9)
    assert costs["latency_ms_std"] == pytest.approx(np.array(expected) * model.relative_std, rel=1e-9)
    assert all(values.shape == (120,) for values in costs.values())


@pytest.mark.parametrize("which", ["full", "plain"])
def test_latency_is_what_the_device_takes(which: str, request: pytest.FixtureRequest) -> None:
    cost: CostModel = request.getfixturevalue(which)
    rows = drawn(cost.space, 60, seed=8)
    truth = np.array([planted_ms(cost.space.workload_of_row(row).operators) for row in rows])
    assert cost(rows)["latency_ms"] == pytest.approx(truth, rel=0.03)


def test_one_candidate_costs_what_its_row_costs(full: CostModel) -> None:
    space = full.space
    candidate = space.reference()
    row = space.encode(candidate)
    of_row = full(row)
    assert full.of(candidate) == {name: values[0] for name, values in of_row.items()}
    assert full.of(candidate)["macs"] == space.workload(candidate).macs


def test_splitting_a_batch_changes_nothing(plain: CostModel) -> None:
    rows = plain.space.sample(np.random.default_rng(0), CHUNK + 1000)
    whole = plain(rows)
    for cuts in ([1], [500, 501, 9000], [CHUNK], [CHUNK + 999]):
        parts = [plain(part) for part in np.split(rows, cuts)]
        for name, values in whole.items():
            assert np.array_equal(values, np.concatenate([part[name] for part in parts])), name
    backwards = plain(rows[::-1])
    assert all(np.array_equal(values, backwards[name][::-1]) for name, values in whole.items())


def test_scoring_leaves_its_input_and_its_tables_alone(plain: CostModel) -> None:
    rows = drawn(plain.space, 50)
    before = rows.copy()
    first = plain(rows)
    first["latency_ms"] += 1.0
    again = plain(rows)
    assert np.array_equal(rows, before)
    assert first["latency_ms"] == pytest.approx(again["latency_ms"] + 1.0)
    assert len(plain(rows[:0])["macs"]) == 0


def test_a_device_that_never_ran_integers_cannot_price_them() -> None:
    with pytest.raises(UnavailableError, match="has not measured operators like"):
        CostModel(digits_space(("bits",)), synthetic_device(digits_space(()), 40))


# ---- expected latency ----


def one_hot(space: Space, row: Rows) -> list[Tensor]:
    return [
        torch.nn.functional.one_hot(torch.tensor(int(i)), int(n)).double()
        for i, n in zip(row, space.sizes, strict=True)
    ]


def softened(space: Space, seed: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.softmax(torch.randn(int(n), generator=g, dtype=torch.float64), 0) for n in space.sizes]


@pytest.mark.parametrize("which", ["full", "plain"])
def test_expected_latency_of_a_certain_choice_is_its_latency(which: str, request: pytest.FixtureRequest) -> None:
    cost: CostModel = request.getfixturevalue(which)
    rows = drawn(cost.space, 12, seed=5)
    expected = [float(cost.expected(one_hot(cost.space, row))) for row in rows]
    assert expected == pytest.approx(cost(rows)["latency_ms"], rel=1e-9)


@pytest.mark.parametrize("which", ["full", "plain"])
def test_its_gradient_is_that_of_finite_differences(which: str, request: pytest.FixtureRequest) -> None:
    cost: CostModel = request.getfixturevalue(which)
    probabilities = softened(cost.space, 0)
    leaves = [p.clone().requires_grad_() for p in probabilities]
    torch.autograd.backward(cost.expected(leaves))
    columns = [*range(0, len(probabilities), max(1, len(probabilities) // 12)), len(probabilities) - 1]
    for column in columns:
        gradient = leaves[column].grad
        assert gradient is not None
        for option in range(len(gradient)):
            step = torch.zeros_like(probabilities[column])
            step[option] = 1e-5
            values = []
            for sign in (1, -1):
                moved = list(probabilities)
                moved[column] = moved[column] + sign * step
                values.append(float(cost.expected(moved)))
            assert float(gradient[option]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-9)


def test_a_certain_depth_leaves_out_the_blocks_beyond_it(plain: CostModel) -> None:
    space = plain.space
    row = space.encode({**space.reference(), "s4.depth": 1})
    probabilities = [p.requires_grad_() for p in one_hot(space, row)]
    torch.autograd.backward(plain.expected(probabilities))
    for name in ("s4b2.kernel", "s4b3.expand"):
        gradient = probabilities[space.column(name)].grad
        assert gradient is not None
        assert not gradient.any()
    gradient = probabilities[space.column("s4.depth")].grad
    assert gradient is not None
    assert gradient[2] > gradient[1] > 0, "more depth would cost more"


def mixture_error(cost: CostModel, column: int) -> float:
    """How far the expectation under two equally likely options is from the mean of the two, relative to it."""
    probabilities = softened(cost.space, 1)

    def expected(choice: Sequence[float]) -> float:
        changed = [*probabilities[:column], torch.tensor(choice, dtype=torch.float64), *probabilities[column + 1 :]]
        return float(cost.expected(changed))

    rest = [0.0] * (int(cost.space.sizes[column]) - 2)
    mean = (expected([1.0, *rest, 0.0]) + expected([0.0, *rest, 1.0])) / 2
    return abs(expected([0.5, *rest, 0.5]) / mean - 1)


def test_the_expectation_is_linear_in_each_decision_of_one_place(plain: CostModel) -> None:
    names = [d.name for d in plain.space.decisions]
    for column, name in enumerate(names):
        if not name.endswith(".width"):
            assert mixture_error(plain, column) < 1e-12, name


def test_the_expectation_is_linear_in_widths(plain: CostModel) -> None:
    names = [d.name for d in plain.space.decisions]
    errors = {name: mixture_error(plain, column) for column, name in enumerate(names) if name.endswith(".width")}
    assert max(errors.values()) < 1e-12, errors


def test_the_expectation_is_the_mean_over_draws(plain: CostModel) -> None:
    space = plain.space
    probabilities = [torch.full((int(n),), 1 / int(n), dtype=torch.float64) for n in space.sizes]
    latency = plain(space.sample(np.random.default_rng(0), 200_000))["latency_ms"]  # draws each option alike
    error = float(latency.std() / np.sqrt(len(latency)))
    assert float(plain.expected(probabilities)) == pytest.approx(float(latency.mean()), abs=4 * error)
