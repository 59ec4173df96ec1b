"""Peak memory: amounts counted by hand, planted coefficients, tables against networks, and ONNX Runtime itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwnas.latency_tables.device import Device
from hwnas.latency_tables.plan import precision_pairs, sample_networks
from hwnas.latency_tables.profiler import prepare
from hwnas.latency_tables.runtimes.onnxruntime import OnnxRuntime
from hwnas.predictors import CostModel
from hwnas.predictors.learnt import memory_model, operators_with_held
from hwnas.predictors.memory import ALIVE, MIN_NETWORKS, SEGMENT, WORKSPACE, MemoryModel, amounts
from hwnas.predictors.registration import check_memory
from hwnas.spaces import Operator, Space
from hwnas.spaces.errors import InvalidFileError
from hwnas.spaces.variation import sample_coherent
from tests.every_kind import OPERATORS

from .synthetic import digits_space, synthetic_device

PLANTED = MemoryModel(
    held=2.0,
    alive=(1.5, 0.5, 1.2, 0.8, 0.7, 0.4, 0.9, 1.1),
    workspace=(1.1, 0.6, 0.9),
    early=0.6,
    constant=3000.0,
)


def conv(cin: int, cout: int, kernel: int = 1, groups: int = 1, w: int = 32, i: int = 32, o: int = 32) -> Operator:
    """On 4×4 positions."""
    side = (4, 4)
    return Operator("conv", cin, cout, side, side, kernel, 1, groups, weight_bits=w, in_bits=i, out_bits=o)


def named(operator: Operator) -> dict[str, float]:
    """An operator's amounts that are not zero."""
    own = amounts([operator])
    names = (*ALIVE, *WORKSPACE, "early")
    values = np.column_stack([own.alive, own.workspace, own.early])[0].tolist()
    return {name: value for name, value in zip(names, values, strict=True) if value}


def test_amounts_of_float_layers() -> None:
    assert named(conv(8, 6)) == {"read": 4 * 8 * 16, "written": 4 * 6 * 16}
    assert named(conv(8, 6, 3, i=8, o=4)) == {
        "read": 8 * 16, "written": 6 * 16, "float copy read": 4 * 8 * 16, "float copy written": 4 * 6 * 16,
        "layout copy read": 4 * 8 * 16, "layout copy written": 4 * 6 * 16,
    }  # fmt: skip


def test_amounts_of_emulated_layers() -> None:
    weights = 4 * 6 * 8
    pointwise = {"read": 8 * 16, "float copy read": 4 * 8 * 16, "written": 4 * 6 * 16, "float weights": weights}
    assert named(conv(8, 6, w=4, i=8)) == pointwise | {"early": weights}
    depthwise = named(conv(8, 8, 3, groups=8, w=4, i=8))
    assert depthwise["float patches"] == SEGMENT
    assert depthwise["early"] == depthwise["float weights"] == 4 * 8 * 9
    assert named(conv(2, 17, 3, w=8, i=8))["float patches"] == 4 * 16 * 9 * 2, "more filters than positions"
    for w in (4, 8):  # which become floats when a file is loaded
        assert named(conv(8, 6, 3, w=w)) == named(conv(8, 6, 3))
        assert named(conv(8, 6, 3, w=w, o=8)) == named(conv(8, 6, 3, o=8))


def test_amounts_of_integer_layers() -> None:
    bits = {"w": 8, "i": 8, "o": 4}
    assert named(conv(8, 6, **bits)) == {"read": 8 * 16, "written": 6 * 16, "integer sums": 4 * 6 * 16}
    assert named(conv(8, 6, 3, **bits))["integer patches"] == 9 * 8 * 16
    assert named(conv(8, 8, 3, groups=8, **bits))["integer patches"] == 8 * 9 * 16, "an address of each"


def test_amounts_of_the_rest() -> None:
    size = {"in_size": (4, 4), "out_size": (4, 4)}
    add = Operator("add", 8, 8, in_bits=8, out_bits=8, **size)  # type: ignore[arg-type]
    assert named(add) == {"read": 128, "written": 128}
    gate = replace(add, kind="scale")
    assert named(gate) == named(add) | dict.fromkeys(("float copy read", "float copy written", "gated"), 512)
    quantize = Operator("quantize", 3, 3, out_bits=8, **size)  # type: ignore[arg-type]
    assert named(quantize) == {"read": 4 * 48, "written": 48}
    assert named(Operator("linear", 8, 10, weight_bits=8, in_bits=8)) == {"read": 8, "written": 40}


def test_amounts_of_further_kinds() -> None:
    size = {"in_size": (4, 4), "out_size": (4, 4)}
    concat = Operator("concat", 24, 24, in_bits=8, out_bits=8, **size)  # type: ignore[arg-type]
    assert named(concat) == {"read": 24 * 16, "written": 24 * 16}, "all inputs"
    in_floats = {"float copy read": 4 * 24 * 16, "float copy written": 4 * 24 * 16}
    assert named(replace(concat, kind="shuffle")) == named(concat), "integers are moved"
    for kind in ("hadamard", "activate", "zero"):
        assert named(replace(concat, kind=kind)) == named(concat) | in_floats, kind  # no kernel has integers
    gated = replace(conv(8, 6, w=8, i=8, o=8), activation="hswish")
    assert named(gated)["float weights"] == 4 * 6 * 8, "emulated"


def test_amounts_of_kernels_that_are_not_square() -> None:
    wide = replace(conv(8, 6, 1, w=8, i=8, o=8), kernel_width=3)
    assert named(wide)["integer patches"] == 3 * 8 * 16
    assert named(replace(conv(2, 17, 1, w=8, i=8), kernel_width=3))["float patches"] == 4 * 16 * 3 * 2
    assert named(replace(wide, out_bits=32))["float weights"] == 4 * 6 * 8 * 3


def test_amounts_of_transposed_convolutions_and_calls() -> None:
    deconv = Operator("deconv", 8, 6, (4, 4), (8, 8), 3, 2, 2, weight_bits=8, in_bits=8, out_bits=8)
    weights = 4 * 6 * 4 * 9
    assert named(deconv) == {
        "read": 8 * 16, "written": 6 * 64, "float copy read": 4 * 8 * 16, "float copy written": 4 * 6 * 64,
        "float weights": weights, "early": weights, "float patches": 4 * 9 * 3 * 16,
    }  # fmt: skip
    low = replace(OPERATORS["call"], in_bits=8, out_bits=8)
    floats = {"float copy read": 4 * 6 * 64, "float copy written": 4 * 6 * 64}
    assert named(low) == {"read": 6 * 64, "written": 6 * 64} | floats
    assert named(replace(OPERATORS["call that moves"], in_bits=8, out_bits=8)) == {"read": 6 * 64, "written": 6 * 64}


def test_a_network_counted_by_hand() -> None:
    first, second = conv(8, 6, w=4, i=8), replace(conv(6, 6, 3, groups=6, w=8, i=8, o=8), held_bytes=100)
    model = MemoryModel(2.0, (1,) * len(ALIVE), (1, 1, 0), 0.5, 1000.0)
    alive_first, alive_second = 5 * 8 * 16 + 4 * 6 * 16 + 4 * 48, 2 * 6 * 16 + 2 * 100
    assert alive_first > alive_second
    expected = 1000 + 0.5 * 4 * 48 + alive_first + 4 * 6 * 16  # the second one's sums are the larger workspace
    assert model.of_networks([(first, second)]).tolist() == [expected]
    assert model.of_networks([(first, replace(second, held_bytes=1000))])[0] == expected - alive_first + 2 * 96 + 2000


def told(space: Space, device: Device, n: int) -> Device:
    """The device with the planted memory of its first ``n`` networks to learn from, and of all held-out ones."""
    networks, left = [], n
    planted = PLANTED.of_networks(operators_with_held(device.table.networks))
    for network, bytes_ in zip(device.table.networks, planted, strict=True):
        known = network.role == "check" or left > 0
        left -= network.role == "fit"
        networks.append(replace(network, peak_memory_bytes=round(float(bytes_)) if known else None))
    return replace(device, table=replace(device.table, networks=tuple(networks)))


@pytest.fixture(scope="module")
def device() -> Device:
    space = digits_space()
    return told(space, synthetic_device(space), 160)


def test_planted_coefficients_are_found(device: Device) -> None:
    model, space = memory_model(device), digits_space()
    assert model is not None
    found = check_memory(device, space)
    assert found is not None
    assert found.verified.networks == 20
    assert found.verified.mape < 0.03
    assert found.verified.kendall_tau > 0.95 > 0.8 > found.lifetimes_tau
    assert model.held == pytest.approx(PLANTED.held, rel=0.35)
    assert model.early == pytest.approx(PLANTED.early, abs=0.15)
    assert model.workspace[0] == pytest.approx(PLANTED.workspace[0], rel=0.1)
    assert min(model.held, *model.alive, *model.workspace, model.early, model.constant) >= 0


@pytest.mark.parametrize("joint", [(), ("bits", "sparsity", "rank")])
def test_tables_hold_what_networks_allocate(joint: tuple[str, ...]) -> None:
    space = digits_space(joint)
    cost = CostModel(space, told(space, synthetic_device(space), 60))
    rng = np.random.default_rng(3)
    rows = np.concatenate([space.sample(rng, 60), sample_coherent(space, rng, 60)])
    costs = cost(rows)
    assert cost.memory is not None
    workloads = [space.workload_of_row(row) for row in rows]
    expected = cost.memory.of_networks([w.operators for w in workloads])
    assert costs["peak_memory_bytes"] == pytest.approx(expected, rel=1e-9)
    assert costs["weight_bytes"].tolist() == [w.weight_bytes for w in workloads], "and the sums keep their places"
    assert costs["macs"].tolist() == [w.macs for w in workloads]


def test_the_expected_latency_is_as_without_memory() -> None:
    space = digits_space(())
    plain = synthetic_device(space, 60)
    one, other = CostModel(space, plain), CostModel(space, told(space, plain, 60))
    import torch

    probabilities = [torch.full((int(n),), 1 / int(n), dtype=torch.float64) for n in space.sizes]
    for name in ("latency_ms", "weight_bytes", "params"):
        assert float(other.expected(probabilities, name)) == float(one.expected(probabilities, name))


def test_too_few_networks_leave_it_to_lifetimes() -> None:
    space = digits_space(())
    few = told(space, synthetic_device(space, 60), MIN_NETWORKS - 1)
    assert memory_model(few) is None
    assert check_memory(few, space) is None
    rows = space.sample(np.random.default_rng(0), 20)
    lifetimes = [space.workload_of_row(row).peak_memory_bytes for row in rows]
    assert CostModel(space, few)(rows)["peak_memory_bytes"].tolist() == lifetimes
    enough = told(space, synthetic_device(space, 60), MIN_NETWORKS)
    assert memory_model(enough) is not None


def test_networks_of_a_space_that_is_made_otherwise_now_are_named() -> None:
    device = told(digits_space(()), synthetic_device(digits_space(()), 60), 60)
    first, *others = device.table.networks
    changed = replace(first, candidate='{"gone": 1}')
    device = replace(device, table=replace(device.table, networks=(changed, *others)))
    with pytest.raises(InvalidFileError, match=r"device synthetic has networks of a space.*register it anew"):
        memory_model(device)


def test_what_onnx_runtime_allocates_is_predicted() -> None:
    space, runtime, rng = digits_space(), OnnxRuntime(), np.random.default_rng(0)
    rows = np.concatenate([sample_networks(space, rng, 60, [1.0] * len(precision_pairs(space))), space.sample(rng, 15)])
    networks = [space.workload_of_row(row).operators for row in rows]
    measured = [prepare(space, row, runtime).peak_memory_bytes() for row in rows]
    known = [m for m in measured if m is not None]
    assert len(known) == len(rows)
    predicted = MemoryModel.fit(networks[:60], known[:60]).of_networks(networks[60:])
    lifetimes = np.array([max(o.live_bytes for o in operators) for operators in networks])
    error = np.abs(predicted / known[60:] - 1)
    assert np.median(error) < 0.2
    assert np.median(np.array(known) / lifetimes) > 3, "lifetimes alone say far too little"
