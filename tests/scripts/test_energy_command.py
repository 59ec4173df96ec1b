"""`hwnas device energy`: mistakes, and the way with a log that is brought later."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from hwnas.latency_tables.device import load_device
from hwnas.latency_tables.energy.windows import measure_windows
from hwnas.latency_tables.machine import machine_facts
from hwnas.predictors import metering
from tests.latency_tables.fake_power import PoweredMachine
from tests.search.fixtures import NAME, synthetic_device

from .command import Hwnas


@pytest.fixture
def here(devices: Path) -> Path:
    """The synthetic device, taking itself for this machine."""
    device = synthetic_device()
    facts = device.profile.facts | machine_facts()
    replace(device, profile=device.profile.model_copy(update={"facts": facts})).save(devices / NAME)
    return devices / NAME


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[PoweredMachine]:
    """What networks run on: each draws a power of its own."""
    machine = PoweredMachine(idle_watts=4.0)

    def prepared(_: object, network: object, __: object) -> SimpleNamespace:
        return SimpleNamespace(run=machine.item(20.0, 20.0 + 1000 * network.latency_ms_p50))  # type: ignore[attr-defined]

    monkeypatch.setattr(metering, "_prepare", prepared)
    monkeypatch.setattr(metering, "measure_windows", partial(measure_windows, clock=machine.clock, sleep=machine.sleep))
    return machine


@pytest.mark.usefixtures("devices")
def test_either_a_meter_or_a_log(hwnas: Hwnas) -> None:
    for arguments in ((), ("--meter", "rapl", "--log", "power.csv")):
        answer = hwnas("device", "energy", NAME, *arguments)
        assert answer.code == 2
        assert "give either --meter, to measure, or --log, to read" in answer.err


@pytest.mark.usefixtures("devices")
def test_without_zeus_it_says_what_to_install(hwnas: Hwnas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeus", None)
    for meter in ("nvml", "rapl", "soc"):
        said = hwnas("device", "energy", NAME, "--meter", meter).complaint
        assert "needs the package zeus" in said
        assert said.endswith("run 'pip install hwnas[energy]'")


@pytest.mark.usefixtures("devices")
def test_other_mistakes(hwnas: Hwnas) -> None:
    assert "unknown device 'syntetic'" in hwnas("device", "energy", "syntetic", "--meter", "log").complaint
    assert "'abacus' is not one of" in hwnas("device", "energy", NAME, "--meter", "abacus").err
    assert "not in the range" in hwnas("device", "energy", NAME, "--meter", "log", "--window", "0.5").err
    assert "not in the range" in hwnas("device", "energy", NAME, "--meter", "log", "--networks", "26").err
    assert "measure energy first, with --meter log" in hwnas("device", "energy", NAME, "--log", "power.csv").complaint


def test_energy_is_measured_on_the_device_itself(devices: Path, hwnas: Hwnas) -> None:
    said = hwnas("device", "energy", NAME, "--meter", "log").complaint
    assert "is another machine (made up for tests): its energy can only be measured there" in said
    assert not (devices / NAME / "windows.json").exists()


def test_a_log_is_brought_later(here: Path, machine: PoweredMachine, hwnas: Hwnas, tmp_path: Path) -> None:
    answer = hwnas("device", "energy", NAME, "--meter", "log", "--networks", "30", "--rounds", "2")
    assert answer.code == 0, answer.err
    assert f"now run: hwnas device energy {NAME} --log POWER.csv" in answer.out
    assert load_device(NAME).profile.power_meter is None
    assert (here / "windows.json").exists()

    log = machine.log(50, offset_s=0.6)
    rows = "".join(f"{t},{w}\n" for t, w in zip(log.times_s, log.watts, strict=True))
    (tmp_path / "power.csv").write_text("time_s,power_w\n" + rows)
    answer = hwnas("device", "energy", NAME, "--log", "power.csv")
    assert answer.code == 0, answer.err
    said = " ".join(answer.out.split())
    assert "an external meter, log power.csv; 2 windows of 1 s, 4.0 W idle power subtracted; held out: MAPE" in said
    assert "(7 networks)" in said
    done = load_device(NAME)
    for network in done.table.networks:
        if network.energy_mj is not None:
            assert network.energy_mj == pytest.approx(20.0 + 1000 * network.latency_ms_p50, rel=0.1)
    assert sum(n.energy_mj is not None for n in done.table.networks) == 30

    (tmp_path / "power.csv").write_text("time_s,power_w\n1,2\n1,2\n")
    assert "line 3: the time does not move forward" in hwnas("device", "energy", NAME, "--log", "power.csv").complaint
    assert load_device(NAME) == done
