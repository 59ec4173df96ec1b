"""Energy in the cost model: learnt from metered networks, with its error, or refused with the reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hwnas.latency_tables.device import Device
from hwnas.latency_tables.table import LatencyTable, NetworkRow
from hwnas.predictors import CostModel
from hwnas.predictors.features import energy_terms
from hwnas.predictors.learnt import energy_model
from hwnas.spaces import Operator, Space
from hwnas.spaces.canonical import Activity
from hwnas.spaces.decision import Decision
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.slot import Slot, When
from hwnas.spaces.space import Rows
from tests.synthetic_table import synthetic_table

from .synthetic import digits_space, planted_mj, planted_ms, synthetic_device

DEEP = (When("depth", frozenset({2})),)


def small_space() -> Space:
    """36 rows: a stem, perhaps a second convolution, a classifier."""

    def conv(name: str, cin: int, cout: int, kernel: int, bits: int) -> Operator:
        return Operator("conv", cin, cout, (8, 8), (8, 8), kernel, weight_bits=bits, in_bits=bits, out_bits=bits,
                        activation="relu", affine="norm", name=name)  # fmt: skip

    def classifier(name: str, width: int, bits: int) -> tuple[Operator, ...]:
        pool = Operator("pool", width, width, (8, 8), in_bits=bits, out_bits=bits, name="pool")
        return pool, Operator("linear", width, 10, weight_bits=bits, in_bits=bits, affine="bias", name=name)

    options: dict[str, tuple[int, ...]] = {
        "depth": (1, 2),
        "width": (8, 16, 24),
        "bits": (8, 32),
        "second.kernel": (1, 3, 5),
    }
    return Space(
        name="small",
        spec={"name": "small"},
        decisions=[Decision(name, values) for name, values in options.items()],
        slots=[
            Slot("stem", ("width", "bits"), lambda name, width, bits: (conv(name, 8, width, 3, bits),)),
            Slot("second", ("width", "second.kernel", "bits"),
                 lambda name, width, kernel, bits: (conv(name, width, width, kernel, bits),), when=DEEP),
            Slot("classifier", ("width", "bits"), classifier),
        ],
        input_shape=(8, 8, 8),
        num_classes=10,
        activities=[Activity("second.kernel", DEEP)],
        references={"plain": {"depth": 2, "width": 24, "bits": 32, "second.kernel": 3}},
    )  # fmt: skip


def every_row(space: Space) -> Rows:
    return space.canonical(np.array(list(np.ndindex(*space.sizes)), dtype=np.int16))


def metered(device: Device, fit: int = 10**6) -> Device:
    """The device after a meter saw its first networks to learn from, and all held-out ones."""
    table, networks = device.table, []
    left = fit
    for n in table.networks:
        seen = n.role == "check" or left > 0
        left -= n.role == "fit"
        networks.append(_with_energy(n, planted_mj(table.operators_of(n))) if seen else n)
    return replace(device, table=LatencyTable(table.operators, tuple(networks)))


def _with_energy(network: NetworkRow, mj: float) -> NetworkRow:
    return replace(network, energy_mj=mj, energy_spread=0.01)


@pytest.fixture(scope="module")
def small() -> CostModel:
    space = small_space()
    device = synthetic_device(digits_space(()), 1)
    return CostModel(
        space, metered(replace(device, table=synthetic_table(space, {"fit": every_row(space)}, planted_ms)))
    )


def test_terms_of_a_convolution() -> None:
    """16 → 32 channels, 3×3 on 4×4: 73,728 MACs, 256 and 512 values, 4608 weights."""
    o = Operator("conv", 16, 32, (4, 4), (4, 4), 3, weight_bits=8, in_bits=8, out_bits=8)
    weight_bytes = 4608 + 5 * 32
    assert dict(energy_terms(o)) == {
        ("conv", "integer", "call"): 1.0,
        ("conv", "integer", "macs"): pytest.approx(0.73728),
        ("moved", "integer"): pytest.approx((256 + 512 + weight_bytes) / 1e4),
    }
    pool = Operator("pool", 16, 16, (4, 4))
    assert dict(energy_terms(pool)) == {
        ("pool", "float", "call"): 1.0,
        ("moved", "float"): pytest.approx(4 * 272 / 1e4),
    }
    pointwise = Operator("conv", 16, 32, (4, 4), (4, 4))
    assert next(energy_terms(pointwise))[0] == ("pointwise", "float", "call")
    assert next(energy_terms(replace(pointwise, groups=16, out_channels=16)))[0] == ("depthwise", "float", "call")


def test_energy_is_what_was_planted(small: CostModel) -> None:
    rows = every_row(small.space)
    costs = small(rows)
    truth = np.array([planted_mj(small.space.workload_of_row(row).operators) for row in rows])
    assert costs["energy_mj"] == pytest.approx(truth, rel=0.01)
    model = small.energy
    assert model is not None
    operators = [small.space.workload_of_row(row).operators for row in rows]
    summed = [model.of_operators(o).sum() + model.per_network for o in operators]
    assert costs["energy_mj"] == pytest.approx(np.array(summed), rel=1e-9)
    assert costs["energy_mj_std"] == pytest.approx(costs["energy_mj"] * model.relative_std, rel=1e-9)
    assert model.relative_std > 0
    assert small.summed[:2] == ("latency_ms", "energy_mj")
    small.require("energy_mj")


@pytest.mark.parametrize("cost", ["latency_ms", "energy_mj", "macs"])
def test_the_expectation_is_the_mean_over_all_candidates(small: CostModel, cost: str) -> None:
    probabilities = [torch.full((int(n),), 1 / int(n), dtype=torch.float64) for n in small.space.sizes]
    assert float(small.expected(probabilities, cost)) == pytest.approx(
        float(small(every_row(small.space))[cost].mean())
    )


def test_the_expectation_weighs_candidates_by_their_probability(small: CostModel) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [int(n) for n in small.space.sizes]
    probabilities = [torch.softmax(torch.randn(n, generator=generator, dtype=torch.float64), 0) for n in sizes]
    weights = np.array([float(np.prod([p[i] for p, i in zip(probabilities, index, strict=True)]))
                        for index in np.ndindex(*sizes)])  # fmt: skip
    mean = float((weights * small(every_row(small.space))["energy_mj"]).sum())
    assert float(small.expected(probabilities, "energy_mj")) == pytest.approx(mean)


def test_without_a_meter_energy_is_refused_with_the_reason() -> None:
    space = digits_space(())
    cost = CostModel(space, synthetic_device(space, 40))
    assert cost.energy is None
    assert not {"energy_mj", "energy_mj_std"} & cost(space.sample(np.random.default_rng(0), 3)).keys()
    cost.require("latency_ms")
    with pytest.raises(UnavailableError, match="nothing is known of energy on synthetic: no power meter was read when"):
        cost.require("energy_mj")


def test_too_few_metered_networks_teach_nothing() -> None:
    device = synthetic_device(digits_space(()), 60)
    assert energy_model(metered(device, fit=19)) is None
    assert energy_model(metered(device, fit=20)) is not None


def test_a_meter_that_saw_other_networks_does_not_stand_in_the_way_of_latency() -> None:
    """Such as those of the space that the device was registered for first."""
    space, first = digits_space(("bits",)), digits_space(())
    table, before = synthetic_device(space, 60).table, metered(synthetic_device(first, 60)).table
    shift = len(table.operators)
    moved = [replace(n, operators=tuple(i + shift for i in n.operators)) for n in before.networks]
    both = LatencyTable((*table.operators, *before.operators), (*table.networks, *moved))
    device = replace(synthetic_device(first, 1), table=both)
    cost = CostModel(space, device)
    assert cost.energy is None
    costs = cost(space.sample(np.random.default_rng(0), 5))
    assert "energy_mj" not in costs
    assert (costs["latency_ms"] > 0).all()
    with pytest.raises(
        UnavailableError, match="its meter saw other networks, the device has not measured operators like"
    ):
        cost.require("energy_mj")
    assert CostModel(first, device).energy is not None
