"""`hwnas device register` and `verify`: what they ask for, here and on a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from hwnas.predictors import registration_request
from hwnas.predictors.metrics import PredictionError
from hwnas.search import device_node
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
