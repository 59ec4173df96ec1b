"""Devices measured on a node of a real Ray cluster; only the judge of the machine's steadiness is lenient."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import cloudpickle
from ray.cluster_utils import Cluster

from hwnas.latency_tables.device import list_devices, load_device
from hwnas.latency_tables.machine import machine_facts
from hwnas.predictors.registration import covers
from hwnas.search import device_node
from hwnas.search.device_node import register_on_node, verify_on_node
from hwnas.search.ray_cluster import cluster, run_on_device
from hwnas.spaces import load_space
from hwnas.spaces.errors import (
    HwnasError,
    NoisyMeasurementError,
    UnavailableError,
    UnknownNameError,
)

from .fixtures import synthetic_device
from .node_requests import IMPOSSIBLE, LENIENT, NAME, PLAN, Heard, asked

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # nodes cannot import the tests


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head, and a node that is two devices and has a folder of devices of its own."""
    folder = tmp_path_factory.mktemp("node")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    own = {"HWNAS_DEVICES": str(folder / "devices")}
    made.add_node(num_cpus=2, resources={f"device:{NAME}": 1, "device:another": 2}, env_vars=own)
    yield made
    made.shutdown()
    assert list(folder.iterdir()) == []


@pytest.fixture(autouse=True)
def devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's folder of devices where the command runs."""
    monkeypatch.setenv("HWNAS_DEVICES", str(tmp_path / "devices"))
    return tmp_path / "devices"


def node_id(nodes: Cluster) -> str:
    (node,) = nodes.worker_nodes
    return str(node.node_id)


def lenient() -> None:
    """In a node's process: the machine is always steady, and facts say which node it is."""
    from hwnas.latency_tables import device, steadiness
    from hwnas.predictors import registration

    node = {"ray node": ray.get_runtime_context().get_node_id(), "devices": os.environ["HWNAS_DEVICES"]}
    registration.machine_facts = lambda: machine_facts() | node
    for module in (device, registration):
        module.Steadiness = lambda *_: steadiness.Steadiness(work=lambda: None, clock=lambda: 0.0)  # type: ignore[misc]


def register_leniently(*arguments: Any, progress: Any) -> dict[str, bytes]:
    lenient()
    return device_node._register(*arguments, progress=progress)


def verify_leniently(*arguments: Any, progress: Any) -> Any:
    from hwnas.predictors import registration

    lenient()
    measure = registration.measure
    registration.measure = lambda items, **options: measure(items, LENIENT, **options)  # type: ignore[assignment]
    return device_node._verify(*arguments, progress=progress)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs on nodes is lenient."""
    monkeypatch.setattr(device_node, "_register", register_leniently)
    monkeypatch.setattr(device_node, "_verify", verify_leniently)


@pytest.mark.usefixtures("patient")
def test_a_device_is_measured_on_its_node_and_saved_here(nodes: Cluster, devices: Path) -> None:
    heard = Heard()
    device = register_on_node(asked(), [], nodes.address, heard)
    assert load_device(NAME) == device
    assert [path.name for path in devices.iterdir()] == [NAME]
    facts = device.profile.facts
    assert facts["ray node"] == node_id(nodes)
    assert not Path(facts["devices"]).exists()
    assert facts.items() >= machine_facts().items()
    assert device.profile.verified is not None
    assert device.profile.verified.networks == 3
    assert heard.texts[0].startswith("waiting until node ")
    assert heard.texts[1] == "checking integer kernels"
    assert heard.texts[-1].startswith("measured ")
    assert not ray.is_initialized()

    # For another space the device as known so far is sent along, and keeps what it has.
    more = asked(spec=load_space("mbconv", input_shape=(1, 8, 8), num_classes=11, joint=()).spec)
    known = more.known_here()
    assert [d.name for d in known] == [NAME]
    again = register_on_node(more, known, nodes.address, Heard())
    assert load_device(NAME) == again
    assert again.table.networks[: len(device.table.networks)] == device.table.networks
    assert covers(again, asked().space)
    assert covers(again, more.space)

    found = verify_on_node(again, 4, 1, nodes.address, Heard())
    assert [space.num_classes for space, _, _ in found] == [10, 11]
    assert all(error.count == 4 and speed > 0 for _, error, speed in found)


def where(mark: str, progress: Any) -> tuple[str, dict[str, float]]:
    progress(mark, 0.5)
    context = ray.get_runtime_context()
    return context.get_node_id(), context.get_assigned_resources()


def test_a_measurement_has_its_node_alone(nodes: Cluster) -> None:
    heard = Heard()
    with cluster(address=nodes.address):
        node, resources = run_on_device("another", where, ("here I am",), heard)
    assert node == node_id(nodes)
    assert resources == {"CPU": 2, f"device:{NAME}": 1, "device:another": 2}
    assert heard.texts[1:] == ["here I am"]


def test_where_no_node_is_the_device_what_there_is_and_what_to_type_are_said(nodes: Cluster) -> None:
    with pytest.raises(UnavailableError) as caught:
        register_on_node(asked(name="bord"), [], nodes.address, Heard())
    said = str(caught.value)
    assert said.startswith("no node of the Ray cluster has the resource device:bord (node ")
    nodes_there = said.partition("(")[2].partition("). On the device, ")[0].split("; ")
    assert sorted(node.partition("): ")[2] for node in nodes_there) == [
        "1 CPU",
        "2 CPU, 2 device:another, 1 device:board",
    ]
    assert said.endswith(f"ray start --address={nodes.address} --resources='{{\"device:bord\": 1}}'")


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        pytest.param({"settings": {"provider": "TPU"}}, UnavailableError, "has no TPU here", marks=pytest.mark.slow),
        ({"runtime": "onnxrntime"}, UnknownNameError, "unknown runtime 'onnxrntime'; did you mean 'onnxruntime'?"),
        pytest.param(
            {"plan": replace(PLAN, protocol=IMPOSSIBLE)}, NoisyMeasurementError, "network ", marks=pytest.mark.slow
        ),
    ],
)
def test_errors_of_the_node_arrive_as_they_are(
    changes: dict[str, Any], kind: type[HwnasError], said: str, nodes: Cluster
) -> None:
    with pytest.raises(kind) as caught:
        register_on_node(asked(**changes), [], nodes.address, Heard())
    assert type(caught.value) is kind
    assert str(caught.value).startswith("node ")
    assert said in str(caught.value)
    assert list_devices() == []


@pytest.mark.slow
def test_another_machine_does_not_extend_a_device(nodes: Cluster) -> None:
    device = synthetic_device()
    elsewhere = replace(device, profile=device.profile.model_copy(update={"name": "another"}))
    with pytest.raises(UnavailableError, match=r"^node .* was measured on another machine \(made up for tests\)"):
        register_on_node(asked(name="another"), [elsewhere], nodes.address, Heard())


@pytest.mark.usefixtures("patient")
@pytest.mark.slow
def test_a_node_lost_in_the_middle(nodes: Cluster) -> None:
    node = nodes.add_node(num_cpus=1, resources={"device:lost": 1})

    def lose(_: str) -> None:
        if node in nodes.worker_nodes:
            nodes.remove_node(node)

    plan = replace(PLAN, seconds=60.0, max_networks=2000)
    with pytest.raises(UnavailableError, match=r"^what ran on node .* is lost: .*; nothing is saved.* device:lost"):
        register_on_node(asked(name="lost", plan=plan), [], nodes.address, Heard(lose))
    assert list_devices() == []


def die_once(folder: str, times: int, progress: Any) -> int:
    begun = len(list(Path(folder).iterdir()))
    Path(folder, str(begun)).touch()
    if begun < times:
        os._exit(1)
    return begun


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_what_dies_is_begun_once_more(times: int, nodes: Cluster, tmp_path: Path) -> None:
    heard = Heard()
    with cluster(address=nodes.address):
        if times == 1:
            assert run_on_device(NAME, die_once, (str(tmp_path), times), heard) == 1
        else:
            with pytest.raises(UnavailableError, match=r"^what ran on node .* is lost: .*, 2 times; nothing is saved$"):
                run_on_device(NAME, die_once, (str(tmp_path), times), heard)
    (note,) = heard.notes
    assert note.startswith("what ran on node ")
    assert note.endswith("; beginning afresh")


def last_long(folder: str, progress: Any) -> None:
    try:
        progress("begun", 0.0)
        for _ in range(600):
            time.sleep(0.1)
    finally:
        Path(folder, "ended").touch()


@pytest.mark.slow
def test_ctrl_c_ends_what_runs_on_the_node(nodes: Cluster, tmp_path: Path) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with cluster(address=nodes.address), pytest.raises(KeyboardInterrupt):
        run_on_device(NAME, last_long, (str(tmp_path),), Heard(interrupt))
    assert (tmp_path / "ended").exists()


def fail(progress: Any) -> None:
    raise ZeroDivisionError("a mistake")


@pytest.mark.slow
def test_what_nobody_expected_keeps_its_traceback(nodes: Cluster) -> None:
    with cluster(address=nodes.address), pytest.raises(ZeroDivisionError, match="in fail\n"):
        run_on_device(NAME, fail, (), Heard())
