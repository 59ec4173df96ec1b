"""`hwnas device register` and `verify`: what they ask for, here and on a cluster."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from hwnas.latency_tables.device import Device
from hwnas.latency_tables.table import LatencyTable
from hwnas.latency_tables.transferred import ErrorBars, Outlook, TransferredModel, Wanted
from hwnas.predictors import registration_request
from hwnas.predictors.metrics import PredictionError
from hwnas.predictors.registration import UNFINISHED
from hwnas.scripts.device_tables import further_command
from hwnas.search import device_node
from hwnas.spaces.errors import NoisyMeasurementError
from tests.search.fixtures import JOINT, NAME, digits_space, synthetic_device

from .command import Hwnas

SPACE = ("--input-shape", "1,8,8", "--joint", ",".join(JOINT))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was asked for, of this machine and of a cluster; the answer is the synthetic device."""
    seen: list[tuple[Any, ...]] = []

    def register_on_node(request: Any, known: Any, address: str, observer: Any) -> Any:
        observer.progress("measuring", 0.5)
        seen.append((request, known, address))
        return synthetic_device()

    def register(name: str, space: Any, *others: Any, **options: Any) -> Any:
        options["progress"]("measuring", 0.5)
        options.get("note", str)("going on with 12 networks")
        seen.append((name, space.key, *others, options))
        return synthetic_device()

    monkeypatch.setattr(device_node, "register_on_node", register_on_node)
    monkeypatch.setattr(registration_request, "register", register)
    monkeypatch.setattr(registration_request, "register_from_known", register)
    return seen


def test_all_options_reach_the_measurement(calls: list[tuple[Any, ...]], hwnas: Hwnas) -> None:
    options = (
        "--seconds",
        "7",
        "--runtime",
        "torch",
        "--threads",
        "2",
        "--batch",
        "3",
        "--compiled",
        "--networks",
        "30",
    )
    answer = hwnas("device", "register", "new", *SPACE, *options, "--held-out", "5", "--seed", "6")
    assert answer.code == 0, answer.err
    assert "Registering new" in answer.out
    assert "going on with 12 networks" in answer.out
    ((name, space, asked),) = calls
    assert (name, space, asked["known"], asked["folder"], asked["seed"]) == ("new", digits_space().key, None, None, 6)
    plan, runtime = asked["plan"], asked["runtime"]
    assert (plan.seconds, plan.checks, plan.min_networks) == (7.0, 5, 30)
    assert runtime.name == "torch"
    assert runtime.settings() == {"provider": "cpu", "threads": 2, "batch": 3, "compiled": True}


@pytest.mark.usefixtures("devices")
def test_a_transfer_takes_ten_networks_unless_told_otherwise(calls: list[tuple[Any, ...]], hwnas: Hwnas) -> None:
    for options, networks in (((), 10), (("--networks", "5", "--known", NAME), 5)):
        answer = hwnas("device", "register", "new", *SPACE, "--from-known", *options)
        assert answer.code == 0, answer.err
        assert f"Registering new from {NAME}" in answer.out
        _, _, known, asked = calls.pop()
        assert ([d.name for d in known], asked["networks"]) == ([NAME], networks)


def few_shot_device(**settings: Any) -> Device:
    """A device "few" of which ten networks were measured, in a space and with settings that are not the usual ones."""
    device = synthetic_device()
    table = LatencyTable(device.table.operators, device.table.networks[:10])
    bars = ErrorBars(median=0.042, p90=0.097), ErrorBars(median=0.031, p90=0.08)
    model = TransferredModel(
        known=(NAME,), weights=(1.0,), constant_ms=0.0, networks=10, relative_std=0.05, left_out_ms=(0.1,) * 10,
        per_network_ms=0.01, coefficients=(), kinds=(),
        outlook=Outlook(
            now=bars[0], then=bars[1], seed=3,
            wanted=(Wanted(digest="0a1b2c", latency_ms=0.123, latency_ms_std=0.004),) * 5,
        ),
    )  # fmt: skip
    update = {"name": "few", "transferred": model, "runtime_settings": device.profile.runtime_settings | settings}
    return Device(device.profile.model_copy(update=update), table)


def test_a_transferred_device_says_how_to_go_on(calls: list[tuple[Any, ...]], hwnas: Hwnas, devices: Path) -> None:
    few_shot_device(threads=2).save(devices / "few")
    device = synthetic_device()
    Device(device.profile.model_copy(update={"name": "since"}), device.table).save(devices / "since")
    shown = hwnas("device", "show", "few")
    assert shown.code == 0, shown.err
    assert "± 4.2% or less for half, ± 9.7% or less for 90 % of the networks of the space" in shown.out
    assert "± 3.1% or less for half, ± 8.0% or less for 90 %, as expected" in shown.out
    assert "with 5 more" in shown.out
    assert "0a1b2c (0.123 ± 0.004 ms)" in " ".join(shown.out.split())
    (command,) = [line for line in shown.out.splitlines() if line.startswith("  hwnas device register few ")]
    assert command.endswith("--from-known --networks 15 --threads 2 --seed 3")
    answer = hwnas(*shlex.split(command)[1:])
    assert answer.code == 0, answer.err
    assert f"Registering few from {NAME}" in answer.out
    ((name, space, known, asked),) = calls
    assert (name, space, [d.name for d in known]) == ("few", digits_space().key, [NAME])
    assert (asked["networks"], asked["own"].name, asked["seed"]) == (15, "few", 3)
    assert asked["runtime"].settings()["threads"] == 2


def test_the_command_has_the_settings_that_are_not_the_usual_ones() -> None:
    command = further_command(few_shot_device(provider="CUDAExecutionProvider", batch=8), 20, 0)
    assert command == (
        "hwnas device register few --input-shape 1,8,8 --classes 10 --joint bits,rank --from-known --networks 20 "
        "--provider cuda --batch 8"
    )
    torch = few_shot_device(provider="cpu", compiled=True)
    torch = Device(torch.profile.model_copy(update={"runtime": "torch"}), torch.table)
    assert further_command(torch, 20, 0).endswith("--networks 20 --runtime torch --compiled")


def test_a_device_from_before_error_bars_were_stored_is_shown_without(hwnas: Hwnas, devices: Path) -> None:
    device = few_shot_device()
    assert device.profile.transferred is not None
    plain = device.profile.transferred.model_copy(update={"outlook": None})
    Device(device.profile.model_copy(update={"transferred": plain}), device.table).save(devices / "few")
    shown = hwnas("device", "show", "few")
    assert shown.code == 0, shown.err
    assert "from 10 networks" in shown.out
    assert "error bars" not in shown.out
    assert "hwnas device register" not in shown.out


def test_going_on_needs_more_networks_and_the_same_settings(
    calls: list[tuple[Any, ...]], hwnas: Hwnas, devices: Path
) -> None:
    few_shot_device().save(devices / "few")
    ask = ("device", "register", "few", *SPACE, "--from-known")
    for more in ((), ("--networks", "10")):
        said = hwnas(*ask, *more).complaint
        assert said == "few has measured 10 networks already; ask for more in all, such as --networks 20"
    assert "other settings are another device" in hwnas(*ask, "--networks", "20", "--threads", "2").complaint
    assert "is registered for this space already" in hwnas(*ask[:-1]).complaint
    elsewhere = ("device", "register", "few", "--input-shape", "3,8,8", "--from-known", "--networks", "20")
    assert "is registered already; choose another name" in hwnas(*elsewhere).complaint
    assert calls == []


def test_on_a_cluster_the_device_is_sent_along(calls: list[tuple[Any, ...]], hwnas: Hwnas, devices: Path) -> None:
    few_shot_device().save(devices / "few")
    answer = hwnas("device", "register", "few", *SPACE, "--from-known", "--networks", "12", "--on-cluster")
    assert answer.code == 0, answer.err
    ((request, known, _),) = calls
    assert (request.few, [d.name for d in known]) == (12, ["few", NAME])


@pytest.mark.usefixtures("devices")
def test_on_a_cluster_the_same_is_asked_of_the_node(calls: list[tuple[Any, ...]], hwnas: Hwnas) -> None:
    answer = hwnas("device", "register", "new", *SPACE, "--on-cluster", "--provider", "no such one here")
    assert answer.code == 0, answer.err
    other = ("--input-shape", "3,8,8", "--on-cluster", "--address", "head:6379", "--from-known", "--known", NAME)
    answer = hwnas("device", "register", NAME, *other[:5])
    assert answer.code == 0, answer.err
    assert "measuring" in answer.out
    assert "made up for tests" in answer.out
    (new, nothing, auto), (more, known, address) = calls
    assert (new.name, new.space.key, new.settings["provider"], nothing, auto) == (
        "new", digits_space().key, "no such one here", [], "auto",
    )  # fmt: skip
    assert (more.name, more.spec["input_shape"], [d.name for d in known], address) == (
        NAME, [3, 8, 8], [NAME], "head:6379",
    )  # fmt: skip
    # What can be told without the node is told at once.
    assert "is registered already; choose another name" in hwnas("device", "register", NAME, *other).complaint
    assert "is registered for this space already" in hwnas("device", "register", NAME, *SPACE, "--on-cluster").complaint
    assert len(calls) == 2


@pytest.mark.usefixtures("devices")
def test_a_known_device_keeps_its_runtime(calls: list[tuple[Any, ...]], hwnas: Hwnas) -> None:
    answer = hwnas("device", "register", NAME, "--input-shape", "3,8,8", "--threads", "2")
    assert f"{NAME} was registered with onnxruntime and" in answer.complaint
    assert calls == []


@pytest.mark.usefixtures("devices")
def test_verifying_on_a_cluster(monkeypatch: pytest.MonkeyPatch, hwnas: Hwnas) -> None:
    def verify_on_node(device: Any, *arguments: Any) -> list[Any]:
        assert (device.name, *arguments[:3]) == (NAME, 5, 1, "auto")
        return [(digits_space(), PredictionError(0.021, 0.97, 1.0, 5), 1.25)]

    monkeypatch.setattr(device_node, "verify_on_node", verify_on_node)
    answer = hwnas("device", "verify", NAME, "--on-cluster", "--networks", "5")
    assert answer.code == 0, answer.err
    assert "MAPE 2.1%" in answer.out
    assert "the device is 25% slower now than when it was registered" in answer.out


def test_an_address_is_that_of_a_cluster(hwnas: Hwnas) -> None:
    for command in ("register", "verify"):
        assert "--address needs --on-cluster" in hwnas("device", command, "new", "--address", "auto").err


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), NoisyMeasurementError("network 1 does not repeat")])
def test_how_to_go_on_where_something_was_measured(
    measured: bool, error: BaseException, devices: Path, monkeypatch: pytest.MonkeyPatch, hwnas: Hwnas
) -> None:
    def register(*_: Any, **__: Any) -> Any:
        if measured:
            (devices / "new" / UNFINISHED).mkdir(parents=True)
        raise error

    monkeypatch.setattr(registration_request, "register", register)
    answer = hwnas("device", "register", "new", *SPACE)
    assert answer.code == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert ("What was measured is kept: the same command goes on from there." in answer.out) == measured
    assert "new" not in hwnas("device", "list").out
