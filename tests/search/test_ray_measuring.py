"""Latency in the loop, on a node of a real Ray cluster; only the judge of the machine's steadiness is lenient."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import ray
from ray import cloudpickle
from ray.cluster_utils import Cluster

from hwnas.latency_tables.device import Device
from hwnas.latency_tables.machine import machine_facts
from hwnas.search import ray_measuring
from hwnas.search.ray_cluster import cluster
from hwnas.search.ray_measuring import Measurement, MeasuringNode, measuring
from hwnas.search.ray_nodes import check_resources
from hwnas.spaces import Candidate
from hwnas.spaces.errors import UnavailableError

from .fixtures import PATIENT, digits_space, synthetic_device, thin_row
from .node_requests import IMPOSSIBLE, Heard

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # nodes cannot import the tests
NAME, RESOURCE = "board", "device:board"
SPACE = digits_space()
LARGE, SMALL = SPACE.reference(), SPACE.decode(thin_row(8, 8))


class LenientMeasurer(ray_measuring._Measurer):
    def check(self, asked: ray_measuring.Asked) -> list[str]:
        from hwnas.latency_tables import device, steadiness

        ray_measuring.Protocol = lambda: PATIENT  # type: ignore[assignment,misc]
        device.Steadiness = lambda *_: steadiness.Steadiness(work=lambda: None, clock=lambda: 0.0)  # type: ignore[misc]
        return ray_measuring._Measurer.check(self, asked)


def board(**changes: str) -> Device:
    """The synthetic device, which takes itself for this machine."""
    device = synthetic_device()
    facts = device.profile.facts | machine_facts() | changes
    profile = device.profile.model_copy(update={"name": NAME, "simulated": False, "facts": facts})
    return replace(device, profile=profile)


class ImpatientMeasurer(LenientMeasurer):
    def check(self, asked: ray_measuring.Asked) -> list[str]:
        said = LenientMeasurer.check(self, asked)
        ray_measuring.Protocol = lambda: IMPOSSIBLE  # type: ignore[assignment,misc]
        return said


@pytest.fixture(scope="module")
def joined() -> Iterator[None]:
    """A head, a node that is the board, and this process as a driver of theirs."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=2, resources={RESOURCE: 1})
    with cluster(address=made.address):
        yield
    made.shutdown()


@pytest.fixture(autouse=True)
def elsewhere(joined: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver takes the board for another machine, which the node's process does not."""
    monkeypatch.setattr(ray_measuring, "same_machine", lambda facts: False)
    monkeypatch.setattr(ray_measuring, "_Measurer", LenientMeasurer)


def wait_until_free() -> None:
    end = time.monotonic() + 30
    while ray.available_resources().get(RESOURCE, 0) < 1:
        assert time.monotonic() < end
        time.sleep(0.1)


def measured(nodes: tuple[MeasuringNode, ...], candidate: Candidate) -> ray_measuring.Measured:
    return Measurement(nodes, candidate.to_json()).take()


def test_networks_are_measured_on_the_node_that_is_the_device_and_alone_there() -> None:
    heard = Heard()
    with measuring(SPACE, {"": board(), "phone": board()}, heard) as nodes:
        (node,) = nodes
        free = ray.available_resources()
        assert free.get(RESOURCE, 0) == 0, "nobody else measures there meanwhile"
        assert free["CPU"] == 1, "or trains"
        with pytest.raises(UnavailableError, match=r"2 CPU of one node, and no node .* beside those that are measured"):
            check_resources({"cpu": 2}, taken=[node.id])
        large, small = measured(nodes, LARGE), measured(nodes, SMALL)
        assert large.measured.keys() == small.measured.keys() == {"latency_ms", "phone:latency_ms"}
        assert all(large.measured[name] > small.measured[name] > 0 for name in large.measured)
        assert large.lacking == small.lacking == ""
    assert heard.texts[0].startswith("waiting until node ")
    wait_until_free()


def test_a_process_that_is_lost_costs_its_measurement_alone() -> None:
    with measuring(SPACE, {"": board()}, Heard()) as nodes:
        ray.kill(nodes[0].actor, no_restart=False)
        found = measured(nodes, SMALL)
        assert found.measured == {}
        assert "what measures on node " in found.lacking
        end = time.monotonic() + 60
        while not (found := measured(nodes, SMALL)).measured:
            assert time.monotonic() < end, found.lacking
            time.sleep(0.2)
    wait_until_free()


@pytest.mark.slow
def test_a_network_that_does_not_repeat_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_measuring, "_Measurer", ImpatientMeasurer)
    with measuring(SPACE, {"": board()}, Heard()) as nodes:
        found = measured(nodes, SMALL)
    assert found.measured == {}
    assert "does not repeat" in found.lacking
    wait_until_free()


def test_a_node_that_is_not_there_or_not_the_device_is_refused() -> None:
    other = board().profile.model_copy(update={"name": "pi5"})
    for device, words in (
        (replace(board(), profile=other), "no node of the Ray cluster has the resource device:pi5"),
        (board(processor="another one"), "not the machine that was registered as board"),
    ):
        with pytest.raises(UnavailableError, match=words), measuring(SPACE, {"": device}, Heard()):
            pass
    wait_until_free()
