"""Latency in the loop: the networks of trials are measured on the device while they train.

MnasNet's way (section 3.1): what a network takes on the device counts, whatever is predicted. A network's weights do
not change what it takes, so it is measured untrained, while its trial trains somewhere else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hwnas.latency_tables.beside_anchors import BesideAnchors
from hwnas.latency_tables.device import Device
from hwnas.latency_tables.device_files import Files, device_files, device_from_files
from hwnas.latency_tables.machine import same_machine
from hwnas.latency_tables.profiler import prepare
from hwnas.latency_tables.runtimes import Runtime
from hwnas.latency_tables.timing import Protocol
from hwnas.search.observer import Observer
from hwnas.search.ray_cluster import DEVICE, in_words, node_of, priority_of_node
from hwnas.search.ray_nodes import label
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import HwnasError, InvalidOptionError, UnavailableError
from hwnas.spaces.space import Space

COST = "latency_ms"


class TrialMeasurements:
    """Measures networks on devices, one at a time on each, in processes of the Ray cluster that was joined.

    A device is this machine, or the node that has the resource ``device:NAME``, which is taken from when the context is
    entered until it is left. Where a network does not repeat, or the node is lost, that trial has no measurement, and
    the observer hears why; the next one tries again.

    Args:
        space: Of the networks.
        devices: By the place that the names of their costs begin with, see `hwnas.predictors.several.CostsInPlaces`;
            "" for the run's own.
        observer: Hears of what could not be measured.
    """

    def __init__(self, space: Space, devices: Mapping[str, Device], observer: Observer) -> None:
        self.space = space
        self.devices = dict(devices)
        self.observer = observer
        self._benches: dict[str, _Bench] = {}
        self._under_way: dict[int, dict[str, tuple[_Bench, Any]]] = {}

    def __enter__(self) -> TrialMeasurements:
        """Looks whether all devices can measure.

        Raises:
            InvalidOptionError: One is simulated.
            UnavailableError: No node is the device, more than one is, or it is another machine than was registered.
        """
        try:
            for place, device in self.devices.items():
                if device.profile.simulated:
                    raise InvalidOptionError(f"{device.name} is simulated: there is nothing to measure on it")
                self._bench(place).check()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for bench in self._benches.values():
            bench.end()
        self._benches.clear()

    def begin(self, number: int, candidate: Candidate) -> None:
        """Has a trial's network measured."""
        tasks = self._under_way[number] = {}
        for place in self.devices:
            try:
                bench = self._bench(place)
            except UnavailableError as error:
                self._say(number, error)
            else:
                tasks[place] = bench, bench.latency_ms(candidate)

    def take(self, number: int) -> dict[str, float]:
        """What was measured of a trial's network, by the names of its costs; waits until it was.

        Milliseconds are at the speed at which the device was registered.
        """
        found = {}
        for place, (bench, task) in self._under_way.pop(number, {}).items():
            try:
                found[f"{place}:{COST}" if place else COST] = bench.result(task)
            except HwnasError as error:
                self._say(number, error)
            except RayError as error:
                if self._benches.get(place) is bench:
                    del self._benches[place]
                self._say(number, error)
        return found

    def _bench(self, place: str) -> _Bench:
        if place not in self._benches:
            self._benches[place] = _Bench(self.devices[place], self.space)
        return self._benches[place]

    def _say(self, number: int, error: Exception) -> None:
        words = str(error).splitlines()[0].rstrip(".")
        self.observer.note(f"trial {number + 1} is judged by prediction, its latency was not measured: {words}")


class _Bench:
    """A device, from the driver's side.

    Raises:
        UnavailableError: No node is the device, or more than one is.
    """

    def __init__(self, device: Device, space: Space) -> None:
        resources = {}
        if same_machine(device.profile.facts):
            self.name, node_id = "this machine", ray.get_runtime_context().get_node_id()
        else:
            node = node_of(device.name)
            self.name, node_id = label(node), node["NodeID"]
            resources = {DEVICE + device.name: node["Resources"][DEVICE + device.name]}
        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        remote = ray.remote(num_cpus=0, resources=resources, scheduling_strategy=there)(_Measurer)
        self._actor = remote.remote(device_files(device), json.dumps(space.spec))

    def check(self) -> None:
        """Waits until the device can measure; raises `HwnasError` where it is another machine than was registered."""
        self.result(self._actor.check.remote())

    def end(self) -> None:
        """Lets go of the device."""
        ray.kill(self._actor)

    def latency_ms(self, candidate: Candidate) -> Any:
        """A task that measures a network."""
        return self._actor.latency_ms.remote(candidate.to_json())

    def result(self, task: Any) -> Any:
        """What a task returns; raises `RayError` where the process or the node is lost."""
        try:
            return ray.get(task)
        except RayTaskError as error:
            raise in_words(self.name, error) from None


class _Measurer:
    """A device, in a process of its node."""

    def __init__(self, files: Files, spec: str) -> None:
        torch.set_num_threads(1)
        self._files = files
        self._space = space_from_spec(json.loads(spec))
        self._ready: tuple[Runtime, BesideAnchors] | None = None

    def check(self) -> None:
        """Prepares everything; raises `UnavailableError` where this is another machine than was registered."""
        device = device_from_files(self._files)
        if not same_machine(device.profile.facts):
            raise UnavailableError(
                f"this is not the machine that was registered as {device.name}: that one's processor is "
                f"{device.profile.facts.get('processor', 'another')}"
            )
        runtime = device.make_runtime()
        self._ready = runtime, BesideAnchors(self._space, device.table, runtime, device.steadiness())

    def latency_ms(self, candidate: str) -> float:
        """Of a network, at the speed at which the device was registered."""
        if self._ready is None:
            self.check()
        assert self._ready is not None
        runtime, bench = self._ready
        row = self._space.encode(Candidate.from_json(candidate))
        with priority_of_node():
            item = prepare(self._space, row, runtime).run
            name = f"network {self._space.decode(row).digest}"
            (timing,), slow = bench.measure([item], Protocol(), names=[name])
        return timing.p50_ms / slow
