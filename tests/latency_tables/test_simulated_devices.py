"""Simulated accelerators as devices: found by name, saved in runs, never measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwnas.latency_tables import Device, list_devices, load_device
from hwnas.latency_tables.device import device_folder
from hwnas.latency_tables.machine import same_machine
from hwnas.latency_tables.precisions import executes_on
from hwnas.latency_tables.simulated import ACCELERATORS
from hwnas.spaces import Operator
from hwnas.spaces.errors import InvalidFileError, UnavailableError, UnknownNameError
from hwnas.spaces.files import read_yaml, write_yaml

NAME = "simulated-bit-fusion"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HWNAS_DEVICES", str(tmp_path / "devices"))
    return tmp_path / "devices"


@pytest.mark.parametrize("name", ACCELERATORS)
def test_they_are_there_without_being_registered(name: str, folder: Path) -> None:
    device = load_device(name)
    assert device.name == name
    assert device.profile.simulated
    assert device.accelerator is ACCELERATORS[name]
    assert device.profile.facts["source"] == ACCELERATORS[name].source
    assert device.measured_in_words.startswith("nothing")
    assert not same_machine(device.profile.facts)
    assert list_devices() == []
    assert not folder.exists()


def test_a_run_keeps_one_as_it_keeps_any_device(tmp_path: Path) -> None:
    load_device(NAME).save(tmp_path / "run" / "device")
    again = Device.load(tmp_path / "run" / "device")
    assert again == load_device(NAME)
    assert again.accelerator is ACCELERATORS[NAME]


def test_the_nearest_name_is_given() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'simulated-bit-fusion'"):
        load_device("simulated-bitfusion")


def test_nothing_runs_on_them() -> None:
    with pytest.raises(UnavailableError, match="simulated-bit-fusion is simulated: its costs are computed"):
        load_device(NAME).make_runtime()


def test_their_names_are_taken(folder: Path) -> None:
    with pytest.raises(UnavailableError, match="comes with hwnas: its costs are computed, and nothing can be measured"):
        device_folder(NAME)
    load_device("simulated-eyeriss").save(folder / NAME)  # by hand
    assert list_devices() == []
    assert load_device(NAME).accelerator is ACCELERATORS[NAME]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["runtime_settings"].update(accelerator="abacus"), r"unknown simulated accelerator 'abacus'"),
        (lambda d: d["runtime_settings"].clear(), r"profile\.yaml: unknown simulated accelerator"),
        (lambda d: d.update(simulated=False), r"profile\.yaml: simulated: must be true"),
    ],
)
def test_files_that_claim_another(change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path) -> None:
    load_device(NAME).save(tmp_path / "device")
    data = read_yaml(tmp_path / "device" / "profile.yaml")
    change(data)
    write_yaml(tmp_path / "device" / "profile.yaml", data)
    with pytest.raises(InvalidFileError, match=message):
        Device.load(tmp_path / "device")


def test_they_say_how_they_run_an_operator() -> None:
    assert executes_on(load_device(NAME), Operator("conv", 8, 8, weight_bits=3, in_bits=8, out_bits=8)) == "stored only"
    bit_serial = load_device("simulated-bit-serial-edge")
    assert executes_on(bit_serial, Operator("conv", 8, 8, weight_bits=3, in_bits=8, out_bits=8)) == "native"
