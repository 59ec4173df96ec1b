"""The cost model on simulated devices: exact, for any space, with energy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwnas.latency_tables import load_device
from hwnas.latency_tables.plan import uniform_precision
from hwnas.latency_tables.simulated import ACCELERATORS
from hwnas.predictors import CostModel
from hwnas.predictors.learnt import energy_model, latency_model
from hwnas.predictors.metering import measure_energy
from hwnas.predictors.registration import check, covers, register, verify
from hwnas.spaces import load_space
from hwnas.spaces.errors import UnavailableError

from .synthetic import digits_space

NAME = "simulated-bit-serial-edge"


@pytest.mark.parametrize("name", ACCELERATORS)
def test_candidates_cost_the_sum_of_their_operators(name: str) -> None:
    space, accelerator = digits_space(("bits",)), ACCELERATORS[name]
    cost = CostModel(space, load_device(name))
    rows = space.sample(np.random.default_rng(0), 20)
    costs = cost(rows)
    for i, row in enumerate(rows):
        operators = space.workload_of_row(row).operators
        assert costs["latency_ms"][i] == pytest.approx(sum(map(accelerator.latency_ms, operators)), rel=1e-9)
        assert costs["energy_mj"][i] == pytest.approx(sum(map(accelerator.energy_mj, operators)), rel=1e-9)
    assert not costs["latency_ms_std"].any()
    assert not costs["energy_mj_std"].any()
    cost.require("energy_mj")


def test_models_are_exact() -> None:
    device = load_device(NAME)
    space = digits_space(("bits",))
    operators = space.workload(space.reference()).operators
    for model, of_one in ((latency_model(device), ACCELERATORS[NAME].latency_ms),
                          (energy_model(device), ACCELERATORS[NAME].energy_mj)):  # fmt: skip
        assert model is not None
        assert (model.per_network, model.relative_std) == (0.0, 0.0)
        assert model.of_operators(operators).tolist() == [of_one(o) for o in operators]
        assert model.std_of_operators(operators).tolist() == [0.0] * len(operators)
        assert model.of_networks([operators, operators[:3]]) == pytest.approx(
            [sum(map(of_one, operators)), sum(map(of_one, operators[:3]))]
        )
        assert model.of_networks([]).shape == (0,)


@pytest.mark.parametrize("cost", ["latency_ms", "energy_mj"])
def test_expectations_are_means_over_draws(cost: str) -> None:
    space = digits_space(())
    model = CostModel(space, load_device(NAME))
    probabilities = [torch.full((int(n),), 1 / int(n), dtype=torch.float64) for n in space.sizes]
    drawn = model(space.sample(np.random.default_rng(0), 100_000))[cost]
    error = float(drawn.std() / np.sqrt(len(drawn)))
    assert float(model.expected(probabilities, cost)) == pytest.approx(float(drawn.mean()), abs=4 * error)


def test_fewer_bits_are_rewarded() -> None:
    space = digits_space(("bits",))
    cost = CostModel(space, load_device(NAME))
    eight, four = (uniform_precision(space, bits, bits) for bits in (8, 4))
    costs = cost(np.array([four, eight, space.encode(space.reference())]))
    for name in ("latency_ms", "energy_mj"):
        assert costs[name][0] < costs[name][1] < costs[name][2]


def test_they_cover_every_space_and_hold_nothing_out() -> None:
    device = load_device(NAME)
    for space in (digits_space(()), load_space("mbconv", input_shape=(3, 32, 32), num_classes=7, joint=())):
        assert covers(device, space)
        assert check(device, space) is None


def test_nothing_is_measured_on_them() -> None:
    device = load_device(NAME)
    with pytest.raises(UnavailableError, match="nothing can be measured on it"):
        register(NAME, digits_space(()), progress=lambda *_: pytest.fail("it began to measure"))
    with pytest.raises(UnavailableError, match="is simulated"):
        next(verify(device, 4, 0))
    with pytest.raises(UnavailableError, match="is simulated"):
        measure_energy(device, None)
