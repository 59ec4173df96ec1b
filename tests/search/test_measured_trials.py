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
from hwnas.search import measured_trials
from hwnas.search.measured_trials import TrialMeasurements
from hwnas.search.ray_cluster import cluster
from hwnas.spaces.errors import InvalidOptionError, UnavailableError

from .fixtures import PATIENT, digits_space, synthetic_device, thin_row
from .node_requests import IMPOSSIBLE, Heard

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # nodes cannot import the tests
NAME, RESOURCE = "board", "device:board"
SPACE = digits_space()
LARGE, SMALL = SPACE.reference(), SPACE.decode(thin_row(8, 8))


class LenientMeasurer(measured_trials._Measurer):
    def check(self) -> None:
        from hwnas.latency_tables import device, steadiness

        measured_trials.Protocol = lambda: PATIENT  # type: ignore[assignment,misc]
        device.Steadiness = lambda *_: steadiness.Steadiness(work=lambda: None, clock=lambda: 0.0)  # type: ignore[misc]
        measured_trials._Measurer.check(self)


def board(**changes: str) -> Device:
    """The synthetic device, which takes itself for this machine."""
    device = synthetic_device()
    facts = device.profile.facts | machine_facts() | changes
    profile = device.profile.model_copy(update={"name": NAME, "simulated": False, "facts": facts})
    return replace(device, profile=profile)


class ImpatientMeasurer(LenientMeasurer):
    def check(self) -> None:
        LenientMeasurer.check(self)
        measured_trials.Protocol = lambda: IMPOSSIBLE  # type: ignore[assignment,misc]


@pytest.fixture(scope="module")
def joined() -> Iterator[None]:
    """A head, a node that is the board, and this process as a driver of theirs."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=0, resources={RESOURCE: 1})
    with cluster(address=made.address):
        yield
    made.shutdown()


@pytest.fixture(autouse=True)
def elsewhere(joined: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver takes the board for another machine, which the node's process does not."""
    monkeypatch.setattr(measured_trials, "same_machine", lambda facts: False)
    monkeypatch.setattr(measured_trials, "_Measurer", LenientMeasurer)


def wait_until_free() -> None:
    end = time.monotonic() + 30
    while ray.available_resources().get(RESOURCE, 0) < 1:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_network_takes_what_it_takes_there() -> None:
    heard = Heard()
    with TrialMeasurements(SPACE, {"": board()}, heard) as measurements:
        assert ray.available_resources().get(RESOURCE, 0) == 0, "nobody else measures there meanwhile"
        measurements.begin(0, LARGE)
        measurements.begin(7, SMALL)
        small, large = measurements.take(7), measurements.take(0)
    assert small.keys() == large.keys() == {"latency_ms"}
    assert large["latency_ms"] > small["latency_ms"] > 0
    assert measurements.take(8) == {}
    assert heard.notes == []
    wait_until_free()


def test_a_process_that_is_lost_costs_its_measurement_alone() -> None:
    heard = Heard()
    with TrialMeasurements(SPACE, {"phone": board()}, heard) as measurements:
        ray.kill(measurements._benches["phone"]._actor)
        measurements.begin(4, SMALL)
        assert measurements.take(4) == {}
        (note,) = heard.notes
        assert note.startswith("trial 5 is judged by prediction, its latency was not measured: ")
        measurements.begin(5, SMALL)
        assert measurements.take(5).keys() == {"phone:latency_ms"}
    assert len(heard.notes) == 1
    wait_until_free()


@pytest.mark.slow
def test_a_network_that_does_not_repeat_is_judged_by_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_trials, "_Measurer", ImpatientMeasurer)
    heard = Heard()
    with TrialMeasurements(SPACE, {"": board()}, heard) as measurements:
        measurements.begin(0, SMALL)
        assert measurements.take(0) == {}
    (note,) = heard.notes
    assert "does not repeat" in note
    wait_until_free()


@pytest.mark.parametrize(
    ("device", "error", "words"),
    [
        (replace(board(), profile=board().profile.model_copy(update={"name": "pi5"})), UnavailableError, "device:pi5"),
        (board(processor="another one"), UnavailableError, "not the machine that was registered as board"),
        (Device.simulate("simulated-eyeriss"), InvalidOptionError, "nothing to measure"),
    ],
)
def test_a_device_that_cannot_measure_is_refused_at_once(device: Device, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words), TrialMeasurements(SPACE, {"": device}, Heard()):
        pass
    wait_until_free()
