"""A device registered from a few networks and other devices: what it measures is planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.latency_tables.device import Device, device_folder, list_devices, load_device
from hwnas.latency_tables.table import LatencyTable
from hwnas.latency_tables.transferred import TransferredModel
from hwnas.predictors import few_networks
from hwnas.predictors.cost import CostModel
from hwnas.predictors.few_networks import known_devices, register_from_known
from hwnas.predictors.learnt import latency_model
from hwnas.predictors.metrics import prediction_error
from hwnas.predictors.registration import check
from hwnas.spaces import Operator, Space
from hwnas.spaces.errors import UnavailableError, UnknownNameError
from hwnas.spaces.space import Rows
from tests.synthetic_table import synthetic_table

from .synthetic import digits_space, networks_to_learn_from, synthetic_device

SPACE = digits_space(())
Cost = Callable[[Sequence[Operator]], float]


def by_kind(depthwise: float, other: float, operators: Sequence[Operator]) -> float:
    """Milliseconds where depthwise convolutions cost so much per call and MAC, and other operators so much."""
    return 0.01 + sum((depthwise if o.depthwise else other) * (1e-3 + o.macs / 1e7) for o in operators)


def new_ms(operators: Sequence[Operator]) -> float:
    """A third device, neither of the known ones, half as fast."""
    return 2 * by_kind(1.8, 1.2, operators)


@cache
def known() -> tuple[Device, ...]:
    devices = []
    for name, costs in (("balanced", (1.0, 1.0)), ("narrow", (4.0, 1.0)), ("wide", (1.0, 3.0))):
        device = synthetic_device(SPACE, 30)
        table = synthetic_table(SPACE, {"fit": networks_to_learn_from(SPACE, 120)}, partial(by_kind, *costs))
        devices.append(replace(device, profile=device.profile.model_copy(update={"name": name}), table=table))
    return tuple(devices)


class FakeRuntime:
    name = "onnxruntime"

    def facts(self) -> dict[str, str]:
        return {"runtime": "made up"}

    def settings(self) -> dict[str, Any]:
        return {"provider": "cpu"}

    def check_integer_kernels(self) -> None:
        """Nothing to check."""


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Rows]:
    """The known devices are registered, and measuring gives what is planted; the rows measured are noted."""
    monkeypatch.setenv("HWNAS_DEVICES", str(tmp_path))
    for device in known():
        device.save(device_folder(device.name))
    seen: list[Rows] = []

    def extend(
        table: LatencyTable, space: Space, runtime: object, rows: Rows, *_: object, **__: object
    ) -> LatencyTable:
        seen.append(rows)
        found = synthetic_table(space, {"fit": np.concatenate(seen)}, new_ms)
        assert found.networks[: -len(rows)] == table.networks
        return found

    monkeypatch.setattr(few_networks, "extend", extend)
    return seen


def register(**options: Any) -> Device:
    return register_from_known("new", SPACE, known_devices(SPACE), runtime=FakeRuntime(), **options)  # type: ignore[arg-type]


def test_ten_networks_tell_a_mixture_of_known_devices(measured: list[Rows]) -> None:
    device = register()
    assert [len(rows) for rows in measured] == [10]
    rows = SPACE.sample(np.random.default_rng(5), 300)
    truth = np.array([new_ms(SPACE.workload_of_row(row).operators) for row in rows])
    error = prediction_error(CostModel(SPACE, device)(rows)["latency_ms"], truth)
    assert error.kendall_tau > 0.97
    assert error.mape < 0.02
    for other in known():
        assert prediction_error(CostModel(SPACE, other)(rows)["latency_ms"], truth).kendall_tau < error.kendall_tau


@pytest.mark.usefixtures("measured")
def test_the_profile_says_what_it_was_transferred_from_and_stands_alone() -> None:
    device = register()
    model = device.profile.transferred
    assert model is not None
    assert (model.known, model.networks) == (("balanced", "narrow", "wide"), 10)
    workloads = [SPACE.workload_of_row(row).operators for row in SPACE.sample(np.random.default_rng(6), 20)]
    each = np.column_stack([latency_model(d).of_networks(workloads) for d in known()])
    expected = each @ np.array(model.weights) + model.constant_ms
    loaded = load_device("new")
    assert loaded.profile == device.profile
    for name in model.known:  # the device must not need the others any more
        (device_folder(name) / "profile.yaml").unlink()
    assert latency_model(loaded).of_networks(workloads) == pytest.approx(expected)
    costs = CostModel(SPACE, loaded)(SPACE.sample(np.random.default_rng(7), 5))
    assert costs["latency_ms_std"] == pytest.approx(costs["latency_ms"] * model.relative_std)


@pytest.mark.usefixtures("measured")
def test_the_error_is_that_of_networks_predicted_from_the_others() -> None:
    model = register().profile.transferred
    assert model is not None
    rows = SPACE.sample(np.random.default_rng(8), 300)
    truth = np.array([new_ms(SPACE.workload_of_row(row).operators) for row in rows])
    relative = CostModel(SPACE, load_device("new"))(rows)["latency_ms"] / truth - 1
    within = np.abs(relative) < 2 * model.relative_std
    assert within.mean() > 0.9
    assert model.relative_std < 0.1


@pytest.mark.usefixtures("measured")
def test_it_is_checked_by_each_network_as_predicted_from_the_others() -> None:
    device = register(networks=8)
    result = check(device, SPACE)
    assert result.measured_ms.tolist() == [n.latency_ms_p50 for n in device.table.networks]
    fitted = latency_model(device).of_networks([device.table.operators_of(n) for n in device.table.networks])
    assert 0 < np.abs(fitted / result.predicted_ms - 1).max() < 0.2  # near the fit to all eight, and not the same
    verified, model = device.profile.verified, device.profile.transferred
    assert verified is not None
    assert model is not None
    assert (verified.networks, verified.mape) == (8, pytest.approx(result.error.mape, abs=1e-5))
    relative = result.predicted_ms / result.measured_ms - 1
    assert model.relative_std == pytest.approx(np.sqrt(np.mean(relative**2)))


@pytest.mark.usefixtures("measured")
def test_only_devices_that_measured_the_space_themselves_are_known() -> None:
    register()
    assert [d.name for d in known_devices(SPACE)] == ["balanced", "narrow", "wide"]
    assert [d.name for d in known_devices(SPACE, ["wide"])] == ["wide"]
    with pytest.raises(UnavailableError, match="device 'new' has not measured this very space itself"):
        known_devices(SPACE, ["wide", "new"])
    with pytest.raises(UnknownNameError, match="unknown device 'wid'; did you mean 'wide'"):
        known_devices(SPACE, ["wid"])
    with pytest.raises(UnavailableError, match="no registered device has measured this very space"):
        known_devices(digits_space(("rank",)))


def test_too_few_networks_are_refused_before_anything_is_measured(measured: list[Rows]) -> None:
    with pytest.raises(UnavailableError, match="at least 4 networks are needed"):
        register(networks=3)
    assert not measured
    assert "new" not in list_devices()


@pytest.mark.usefixtures("measured")
def test_it_says_how_certain_it_is_and_what_it_would_measure_next() -> None:
    device = register()
    outlook = transferred(device).outlook
    assert outlook is not None
    assert 0 < outlook.now.median < outlook.now.p90
    assert outlook.then.median < outlook.now.median
    assert outlook.then.p90 < outlook.now.p90
    assert len({w.digest for w in outlook.wanted}) == 10
    assert not {w.digest for w in outlook.wanted} & {n.digest for n in device.table.networks}
    assert load_device("new").profile == device.profile


def test_going_on_measures_what_it_asked_for_and_keeps_the_rest(measured: list[Rows]) -> None:
    first = register()
    second = register(networks=20, own=load_device("new"))
    assert [len(rows) for rows in measured] == [10, 10]
    before, after = transferred(first), transferred(second)
    assert before.outlook is not None
    assert after.outlook is not None
    assert second.table.networks[:10] == first.table.networks
    assert [n.digest for n in second.table.networks[10:]] == [w.digest for w in before.outlook.wanted]
    assert (after.networks, len(after.left_out_ms)) == (20, 20)
    assert after.outlook.now.median < before.outlook.now.median
    assert after.outlook.now.p90 < before.outlook.now.p90
    assert second.profile.registration_seconds >= first.profile.registration_seconds
    assert load_device("new").profile == second.profile
    at_once = register_at_once(measured, 20)
    assert {n.digest for n in at_once.table.networks} == {n.digest for n in second.table.networks}


def register_at_once(measured: list[Rows], networks: int) -> Device:
    measured.clear()
    return register(networks=networks)


def test_networks_of_another_draw_are_kept_too(measured: list[Rows]) -> None:
    first = register(networks=6)
    second = register(networks=9, own=first, seed=5)
    assert [len(rows) for rows in measured] == [6, 3]
    assert second.table.networks[:6] == first.table.networks
    assert len({n.digest for n in second.table.networks}) == 9


def test_another_machine_cannot_go_on(measured: list[Rows]) -> None:
    first = register()
    facts = first.profile.facts | {"processor": "another"}
    other = replace(first, profile=first.profile.model_copy(update={"facts": facts}))
    with pytest.raises(UnavailableError, match=r"new was measured on another machine \(another\): go on there"):
        register(networks=20, own=other)
    assert len(measured) == 1


def transferred(device: Device) -> TransferredModel:
    assert device.profile.transferred is not None
    return device.profile.transferred
