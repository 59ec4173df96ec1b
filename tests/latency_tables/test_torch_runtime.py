"""PyTorch on this machine's CPU: what it runs, whose time is whose, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from hwnas.latency_tables.device import Device, Profile
from hwnas.latency_tables.plan import uniform_precision
from hwnas.latency_tables.precisions import classify
from hwnas.latency_tables.profiler import Plan, prepare, profile_space, settle
from hwnas.latency_tables.runtimes import make_runtime
from hwnas.latency_tables.runtimes.torch import Torch, TorchExecutable
from hwnas.latency_tables.timing import Protocol
from hwnas.spaces import Space, load_space
from hwnas.spaces.errors import UnavailableError

PATIENT = Protocol(rounds=2, burst_s=0.002, max_spread=10.0, patience=60, max_wait_s=0.5)
"""Any machine repeats to within this: how long it takes is not what these tests are about."""


@pytest.fixture(scope="module")
def space() -> Space:
    return load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=("bits",))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def row_of(space: Space, weight_bits: int, act_bits: int) -> np.ndarray:
    return uniform_precision(space, weight_bits, act_bits)


def test_it_runs_the_network(space: Space) -> None:
    network = space.build(space.reference())
    settle(network)
    executable = Torch(batch=3).prepare(network)
    result = executable.run()
    assert isinstance(result, torch.Tensor)
    assert result.shape == (3, 10)
    with torch.no_grad():
        assert torch.allclose(result, network(executable.images), atol=1e-5)


@pytest.mark.parametrize("pair", [(8, 8), (8, 32), (32, 32)])
def test_operator_times_cover_the_workload(space: Space, pair: tuple[int, int]) -> None:
    runtime = Torch()
    row = row_of(space, *pair)
    executable = prepare(space, row, runtime)
    assert isinstance(executable, TorchExecutable)
    operators = space.workload_of_row(row).operators
    times = executable.operator_times(4)
    assert set(times) == {o.name for o in operators}
    for o in operators:
        assert 0 < times[o.name].ms < 100
        assert times[o.name].nodes == len(times[o.name].kernels) >= 1
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in executable.module.modules()), "no labels are left"
    convolutions = [times[o.name] for o in operators if o.kind == "conv"]
    assert all("conv2d" in t.kernels for t in convolutions)
    classes = {runtime.kernel_class(k) for t in convolutions for k in t.kernels}
    assert classes == ({"float", "conversion"} if pair[1] == 8 else {"float"})


def test_low_precision_saves_nothing(space: Space) -> None:
    runtime = Torch()
    for (weight_bits, act_bits), word in {(8, 8): "emulated", (8, 32): "stored only", (32, 32): "native"}.items():
        row = row_of(space, weight_bits, act_bits)
        times = prepare(space, row, runtime).operator_times(2)
        layers = [times[o.name] for o in space.workload_of_row(row).operators if o.kind == "conv" and o.name != "stem"]
        assert classify(weight_bits, act_bits, layers, runtime) == word


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("conv2d", "float"), ("linear", "float"), ("relu", "float"), ("mean", "float"), ("sigmoid", "float"),
        ("fake_quantize_per_tensor_affine", "conversion"), ("flatten", "layout"), ("contiguous", "layout"),
        ("copy_", "layout"), ("cat", "layout"), ("hardswish", "float"),
    ],
)  # fmt: skip
def test_kernel_classes(kernel: str, expected: str) -> None:
    assert Torch().kernel_class(kernel) == expected


@pytest.mark.parametrize("provider", ["cuda", "mps", "xpu", "meta", "abacus"])
def test_devices_that_are_not_here_are_unavailable(provider: str) -> None:
    """``meta`` is everywhere, and computes nothing."""
    if provider == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one here")
    with pytest.raises(UnavailableError, match=rf"PyTorch .* cannot run on '{provider}' here: "):
        Torch(provider=provider)


def test_settings_make_the_same_runtime_again() -> None:
    runtime = Torch(threads=2, batch=3, compiled=True)
    assert torch.get_num_threads() == 2
    again = make_runtime(runtime.name, runtime.settings())
    assert isinstance(again, Torch)
    assert again.settings() == runtime.settings() == {"provider": "cpu", "threads": 2, "batch": 3, "compiled": True}
    assert again.facts() == {"runtime": f"PyTorch {torch.__version__}, compiled", "provider": "cpu"}
    assert Torch().facts()["runtime"] == f"PyTorch {torch.__version__}"


def test_a_device_knows_the_runtime_that_it_was_measured_with() -> None:
    runtime = Torch()
    profile = Profile(
        name="cpu", runtime=runtime.name, runtime_settings=dict(runtime.settings()), facts={}, protocol={},
        probe_ms=0.1, registered="", registration_seconds=0.0,
    )  # fmt: skip
    device = Device(profile)
    assert device.runs_on(runtime)
    assert not device.runs_on(Torch(batch=2))
    assert not device.runs_on(Torch(compiled=True))
    assert not device.runs_on(make_runtime("onnxruntime"))


def test_a_space_is_measured_with_it() -> None:
    space = load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=())
    plan = Plan(
        seconds=0.1, checks=2, min_networks=4, max_networks=4, profiled_networks=0, profiled_runs=2, protocol=PATIENT
    )
    found = profile_space(space, Torch(), np.random.default_rng(0), plan)
    assert [n.role for n in found.table.networks].count("fit") >= 4
    assert all(n.latency_ms_p50 > 0 for n in found.table.networks)
    (precision,) = found.precisions
    assert (precision.weight_bits, precision.act_bits, precision.execution) == (32, 32, "native")
    reference = set(space.workload(space.reference()).operators)
    timed = {row.operator for row in found.table.operators if row.latency_ms_p50 is not None}
    assert timed == reference


@pytest.mark.slow
def test_compiled_networks_compute_the_same_and_cannot_be_taken_apart(space: Space) -> None:
    network = space.build(space.decode(row_of(space, 8, 8)))
    settle(network)
    eager, compiled = Torch().prepare(network), Torch(compiled=True).prepare(network)
    expected, actual = eager.run(), compiled.run()
    assert isinstance(expected, torch.Tensor)
    assert isinstance(actual, torch.Tensor)
    assert float((actual - expected).abs().mean()) < 0.02 * float(expected.std())
    times = compiled.operator_times(2)
    assert set(times) == {o.name for o in network.workload.operators}
    assert {t.nodes for t in times.values()} == {0}
    assert any("conv2d" in t.kernels for t in times.values())
