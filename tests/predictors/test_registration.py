"""What is left of a registration once the measuring is done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.latency_tables.device import PowerMeter, list_devices
from hwnas.latency_tables.machine import machine_facts
from hwnas.latency_tables.profiler import Plan, Profiled
from hwnas.latency_tables.timing import Protocol
from hwnas.predictors import registration
from hwnas.predictors.registration import check, covers, register, verification
from hwnas.spaces import load_space
from hwnas.spaces.errors import InvalidFileError, NoisyMeasurementError, UnavailableError

from .synthetic import digits_space, planted_ms, synthetic_device


def test_a_device_is_checked_on_networks_that_it_did_not_learn_from() -> None:
    space = digits_space(("bits",))
    device = synthetic_device(space, 150)
    result = check(device, space)
    held_out = device.table.with_role("check")
    assert result.measured_ms.tolist() == [n.latency_ms_p50 for n in held_out]
    assert result.measured_ms[0] == planted_ms(device.table.operators_of(held_out[0]))
    verified = verification(result.error)
    assert verified.networks == 20
    assert verified.mape < 0.01
    assert verified.kendall_tau > 0.95
    assert verified.within_10_percent == 1.0


def test_a_device_covers_the_spaces_that_it_measured() -> None:
    space = digits_space(())
    device = synthetic_device(space, 30)
    assert covers(device, space)
    assert covers(device, load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=()))
    for other in (
        digits_space(("rank",)),
        load_space("mbconv", input_shape=(1, 8, 8), num_classes=11, joint=()),
        load_space("mbconv", input_shape=(1, 9, 8), num_classes=10, joint=()),
    ):
        assert not covers(device, other)
        with pytest.raises(UnavailableError, match="device 'synthetic' has no held-out networks of space 'mbconv'"):
            check(device, other)


def test_registering_for_another_space_keeps_the_power_meter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HWNAS_DEVICES", str(tmp_path))
    known, space = synthetic_device(digits_space(()), 30), digits_space(("rank",))
    meter = PowerMeter(name="rapl", what="1 processor package(s), RAPL", windows=3, window_s=1.0, idle_watts=5.0)
    update = {"power_meter": meter, "facts": machine_facts()}
    known = replace(known, profile=known.profile.model_copy(update=update))
    table = synthetic_device(space, 30).table
    found = Profiled(table, known.profile.precisions, 0.1, 0, False)
    monkeypatch.setattr(registration, "profile_space", lambda *_, **__: found)
    done = register("laptop", space, known=known)
    assert done.profile.power_meter == meter
    assert done.profile.probe_ms == 0.1


def test_a_refused_registration_saves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HWNAS_DEVICES", str(tmp_path))
    impossible = Protocol(rounds=2, burst_s=0.0, min_runs=1, warmup_runs=0, max_spread=-1.0, patience=1, max_wait_s=0.0)
    plan = Plan(seconds=1, checks=2, min_networks=1, max_networks=2, profiled_runs=1, protocol=impossible)
    with pytest.raises(NoisyMeasurementError):
        register("laptop", digits_space(()), plan=plan)
    assert list_devices() == []
    assert list(tmp_path.iterdir()) == []


def test_a_bad_name_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(InvalidFileError, match=r"cannot be called '\.\./laptop'"):
        register("../laptop", digits_space(()), progress=lambda *_: pytest.fail("it began to measure"))
