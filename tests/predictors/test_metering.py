"""The energy of a device's networks, from a meter or from a log brought later, on a machine whose power is planted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from hwnas.latency_tables.device import Device
from hwnas.latency_tables.energy.windows import EnergyProtocol, measure_windows
from hwnas.latency_tables.machine import machine_facts
from hwnas.latency_tables.table import NetworkRow
from hwnas.predictors import metering
from hwnas.predictors.learnt import energy_model, networks_with_energy
from hwnas.predictors.metering import LOG, measure_energy, read_log, verify_energy
from hwnas.spaces import Space
from hwnas.spaces.errors import NoisyMeasurementError, UnavailableError
from tests.latency_tables.fake_power import PoweredMachine

from .synthetic import digits_space, planted_mj, synthetic_device

PROTOCOL = EnergyProtocol(rounds=2, window_s=0.2, settle_s=0.1)
MS = 3.0
LOG_PATH = Path("power.csv")


@pytest.fixture(scope="module")
def device() -> Device:
    """The synthetic device, taking itself for this machine."""
    found = synthetic_device(digits_space(()), 60)
    return replace(found, profile=found.profile.model_copy(update={"facts": machine_facts()}))


@dataclass
class Planted:
    """Stands for a network: a run takes 3 ms, and the energy planted for its operators."""

    run: object


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, device: Device) -> Iterator[PoweredMachine]:
    machine = PoweredMachine(idle_watts=6.0)

    def prepared(_: Space, network: NetworkRow, __: object) -> Planted:
        return Planted(machine.item(MS, planted_mj(device.table.operators_of(network))))

    monkeypatch.setattr(metering, "_prepare", prepared)
    clocks = partial(measure_windows, clock=machine.clock, sleep=machine.sleep)
    monkeypatch.setattr(metering, "measure_windows", clocks)
    return machine


def assert_planted(done: Device, rel: float) -> None:
    known = [*networks_with_energy(done, "fit"), *networks_with_energy(done, "check")]
    for network in known:
        assert network.energy_mj == pytest.approx(planted_mj(done.table.operators_of(network)), rel=rel)
        assert network.energy_spread is not None
        assert network.energy_spread < rel


def test_planted_energies_are_measured_and_learnt(device: Device, machine: PoweredMachine) -> None:
    said: list[str] = []
    done, session = measure_energy(device, machine, 40, PROTOCOL, lambda text, _: said.append(text))
    assert said[0] == "measuring the energy of 40 networks, about 17 s"
    assert len(networks_with_energy(done, "fit")) == 30
    assert len(networks_with_energy(done, "check")) == 10
    assert_planted(done, 1e-3)
    meter = done.profile.power_meter
    assert meter is not None
    assert (meter.name, meter.what, meter.windows, meter.window_s) == ("fake", "a planted power", 2, 0.2)
    assert meter.idle_watts == 6.0
    assert meter.clock_offset_s is None
    assert meter.verified is not None
    assert meter.verified.networks == 10
    assert meter.verified.mape < 0.02
    assert len(session.windows) == 2 * 41
    assert done.table.operators == device.table.operators
    assert device.profile.power_meter is None


def test_a_log_that_is_brought_later_says_the_same(device: Device, machine: PoweredMachine) -> None:
    unread, session = measure_energy(device, None, 40, PROTOCOL)
    assert unread == device
    done = read_log(unread, session, machine.log(200, offset_s=-1.7), LOG_PATH)
    assert_planted(done, 0.1)
    meter = done.profile.power_meter
    assert meter is not None
    assert (meter.name, meter.what) == (LOG, "an external meter, log power.csv")
    assert meter.clock_offset_s == pytest.approx(-1.7, abs=0.03)
    assert meter.idle_watts == pytest.approx(6.0, rel=0.02)
    assert meter.verified is not None
    assert meter.verified.mape < 0.1


def test_a_log_replaces_what_another_meter_said(device: Device, machine: PoweredMachine) -> None:
    before, _ = measure_energy(device, machine, 60, PROTOCOL)
    _, session = measure_energy(before, None, 40, PROTOCOL)
    done = read_log(before, session, machine.log(200), LOG_PATH)
    assert done.profile.power_meter is not None
    assert done.profile.power_meter.name == LOG
    assert sum(n.energy_mj is not None for n in before.table.networks) == 60
    assert sum(n.energy_mj is not None for n in done.table.networks) == 40


def test_a_log_for_a_device_registered_anew_is_refused(device: Device, machine: PoweredMachine) -> None:
    _, session = measure_energy(device, None, 40, PROTOCOL)
    other = synthetic_device(digits_space(("rank",)), 30)
    with pytest.raises(UnavailableError, match="that the device does not hold any more"):
        read_log(other, session, machine.log(200), LOG_PATH)


def test_too_few_networks_are_refused_before_anything_is_measured(device: Device, machine: PoweredMachine) -> None:
    start = machine.now
    with pytest.raises(
        UnavailableError, match="at least 20 networks to learn from is needed, and synthetic would give 19"
    ):
        measure_energy(device, machine, 25, PROTOCOL)
    assert machine.now == start


def test_another_machine_is_refused(device: Device, machine: PoweredMachine) -> None:
    facts = machine_facts() | {"processor": "an abacus"}
    elsewhere = replace(device, profile=device.profile.model_copy(update={"facts": facts}))
    with pytest.raises(
        UnavailableError, match=r"is another machine \(an abacus\): its energy can only be measured there"
    ):
        measure_energy(elsewhere, machine, 40, PROTOCOL)


def test_a_meter_that_does_not_see_the_networks_is_refused(device: Device, machine: PoweredMachine) -> None:
    class Blind(PoweredMachine):
        def joules(self) -> float:
            return 6.0 * machine.now

    with pytest.raises(NoisyMeasurementError, match="draws no more power"):
        measure_energy(device, Blind(), 40, PROTOCOL)


def test_without_energy_there_is_nothing_to_verify(device: Device) -> None:
    assert energy_model(device) is None
    assert verify_energy(device) is None
