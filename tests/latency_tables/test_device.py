"""Device profiles: files, names, and what is said when either is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwnas.latency_tables import Device, list_devices, load_device
from hwnas.latency_tables.device import Precision, Profile, Verification, device_folder, devices_folder
from hwnas.latency_tables.machine import machine_facts, same_machine
from hwnas.latency_tables.table import LatencyTable, NetworkRow, OperatorRow
from hwnas.spaces import Operator
from hwnas.spaces.errors import InvalidFileError, UnavailableError, UnknownNameError
from hwnas.spaces.files import read_yaml, write_yaml


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HWNAS_DEVICES", str(tmp_path / "devices"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "devices"


def a_device(name: str = "laptop") -> Device:
    operator = Operator("conv", 3, 8, (8, 8), (8, 8), 3, activation="relu")
    profile = Profile(
        name=name,
        runtime="onnxruntime",
        runtime_settings={"provider": "CPUExecutionProvider", "threads": 1, "batch": 2, "weights_8bit": "uint8"},
        facts={"processor": "Zölf (avx2)"},
        protocol={"rounds": 4, "burst_s": 0.012},
        probe_ms=0.0981,
        registered="2026-01-02 03:04:05 UTC",
        registration_seconds=100.5,
        precisions=(
            Precision(weight_bits=8, act_bits=8, execution="native", relative_latency=0.41, kernels=("QLinearConv",)),
        ),
        verified=Verification(networks=40, mape=0.02, kendall_tau=0.97, within_10_percent=1.0, when="now"),
    )
    network = NetworkRow("0" * 16, "{}", "{}", "fit", (0,), 0.5, 0.6, 0.01, 100)
    return Device(profile, LatencyTable((OperatorRow(operator, ("Conv",), 0.1, 0.01, 1),), (network,)))


def test_round_trip(folder: Path) -> None:
    device = a_device()
    device.save(device_folder("laptop"))
    again = load_device("laptop")
    assert again == device
    assert again.name == "laptop"
    assert sorted(p.name for p in (folder / "laptop").iterdir()) == [
        "networks.parquet", "profile.yaml", "table.parquet",
    ]  # fmt: skip


def test_a_device_is_found_by_its_path_too(tmp_path: Path) -> None:
    a_device("elsewhere").save(tmp_path / "kit" / "elsewhere")
    assert load_device(str(tmp_path / "kit" / "elsewhere")).name == "elsewhere"
    assert list_devices() == []


def test_devices_are_listed_by_name_once_they_are_whole(folder: Path) -> None:
    assert list_devices() == []
    for name in ("pi-5", "laptop", "x86_64.vnni"):
        a_device(name).save(device_folder(name))
    a_device().table.save(folder / "unfinished")
    assert list_devices() == ["laptop", "pi-5", "x86_64.vnni"]


def test_an_unfinished_save_is_not_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("hwnas.latency_tables.device.write_yaml", fail)
    with pytest.raises(OSError, match="disk full"):
        a_device().save(device_folder("laptop"))
    assert list_devices() == []


def test_unknown_devices_are_answered_with_the_nearest(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"'laptop' \(known: simulated-.*\)\. Register this machine"):
        load_device("laptop")
    a_device("raspberry-pi-5").save(device_folder("raspberry-pi-5"))
    with pytest.raises(UnknownNameError, match="unknown device 'rasperry-pi5'; did you mean 'raspberry-pi-5'"):
        load_device("rasperry-pi5")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "-dash", ".hidden", "a b", "ä", "a" * 65, "a\n", "a\0"]
)
def test_names_that_are_no_names(name: str) -> None:
    with pytest.raises(InvalidFileError, match="a device cannot be called"):
        device_folder(name)
    with pytest.raises(ValueError, match="name"):
        Profile.model_validate({**a_device().profile.model_dump(), "name": name})


@pytest.mark.parametrize("name", ["../up", "a b", "..", "a\0"])
def test_a_name_that_is_no_name_is_an_unknown_device(name: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown device"):
        load_device(name)


def test_a_very_long_name_is_an_unknown_device() -> None:
    with pytest.raises(UnknownNameError, match="unknown device"):
        load_device("a" * 300)


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "9", "a" * 64])
def test_names_that_are_names(name: str, folder: Path) -> None:
    assert device_folder(name) == folder / name


def changed(change: Callable[[dict[str, Any]], object]) -> None:
    a_device().save(device_folder("laptop"))
    path = device_folder("laptop") / "profile.yaml"
    data = read_yaml(path)
    change(data)
    write_yaml(path, data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(extra=1), r"profile\.yaml: extra: Extra inputs are not permitted"),
        (lambda d: d.pop("probe_ms"), r"profile\.yaml: probe_ms: Field required"),
        (lambda d: d.update(format=2), r"profile\.yaml: format"),
        (lambda d: d.update(name="../x"), r"profile\.yaml: name"),
        (lambda d: d.update(facts=["a"]), r"profile\.yaml: facts"),
        (lambda d: d.update(registration_seconds="long"), r"profile\.yaml: registration_seconds"),
        (lambda d: d["precisions"][0].update(execution="fast"), r"profile\.yaml: precisions\.0\.execution"),
        (lambda d: d["precisions"][0].pop("weight_bits"), r"profile\.yaml: precisions\.0\.weight_bits"),
        (lambda d: d["verified"].update(networks="many"), r"profile\.yaml: verified\.networks"),
    ],
)
def test_a_malformed_key_is_named(change: Callable[[dict[str, Any]], object], message: str) -> None:
    changed(change)
    with pytest.raises(InvalidFileError, match=message):
        load_device("laptop")


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "just text"])
def test_a_malformed_file_is_named(text: str) -> None:
    changed(lambda _: None)
    (device_folder("laptop") / "profile.yaml").write_text(text)
    with pytest.raises(InvalidFileError, match=r"laptop/profile\.yaml"):
        load_device("laptop")


def test_a_profile_without_its_tables_is_refused() -> None:
    changed(lambda _: None)
    (device_folder("laptop") / "networks.parquet").unlink()
    with pytest.raises(InvalidFileError, match=r"there is no file .*networks\.parquet; register the device again"):
        load_device("laptop")


def test_the_runtime_is_made_as_it_was_measured() -> None:
    device = a_device()
    assert device.make_runtime().settings() == device.profile.runtime_settings


def test_a_runtime_that_is_not_here_says_so() -> None:
    device = a_device()
    settings = {**device.profile.runtime_settings, "provider": "NoSuchExecutionProvider"}
    lost = Device(device.profile.model_copy(update={"runtime_settings": settings}))
    with pytest.raises(UnavailableError, match="has no NoSuchExecutionProvider here"):
        lost.make_runtime()
    with pytest.raises(UnknownNameError, match="unknown runtime 'onnxruntim'; did you mean 'onnxruntime'"):
        Device(device.profile.model_copy(update={"runtime": "onnxruntim"})).make_runtime()


def test_steadiness_knows_the_speed_at_registration() -> None:
    steadiness = a_device().steadiness()
    assert steadiness.usual_ms == 0.0981
    assert not steadiness.steady(0.2)


def test_devices_live_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HWNAS_DEVICES")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert devices_folder() == tmp_path / "data" / "hwnas" / "devices"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert devices_folder() == tmp_path / "home" / ".local" / "share" / "hwnas" / "devices"


def test_profiles_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        a_device().profile.name = "other"


def test_facts_tell_machines_apart() -> None:
    facts = machine_facts()
    assert set(facts) == {"processor", "cores", "memory", "system"}
    assert all(facts.values())
    assert same_machine(facts | {"runtime": "any"})
    for name in facts:
        assert not same_machine(facts | {name: "another"})
        assert not same_machine({k: v for k, v in facts.items() if k != name})
