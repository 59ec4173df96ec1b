"""Latency in the loop: the networks of trials are measured on the device while they train.

MnasNet's way (section 3.1): what a network takes on the device counts, whatever is predicted. A network's weights do
not change what it takes, so it is measured untrained, while its trial trains somewhere else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hwnas.latency_tables.beside_anchors import BesideAnchors
from hwnas.latency_tables.device import Device
from hwnas.latency_tables.device_files import Files, device_files
from hwnas.latency_tables.machine import same_machine
from hwnas.latency_tables.profiler import prepare
from hwnas.latency_tables.runtimes import Runtime
from hwnas.latency_tables.timing import Protocol
from hwnas.search.device_node import bench_on_node
from hwnas.search.observer import Observer
from hwnas.search.ray_cluster import POLL_S, node_of, priority_of_node, whole
from hwnas.search.ray_nodes import label
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import HwnasError, UnavailableError
from hwnas.spaces.space import Space

Asked = tuple[dict[str, Files], dict[str, Any]]
"""The files of devices by place, and the networks' space."""
COST = "latency_ms"
PATIENCE_S = 900.0
"""So long a trial that has been trained waits for its measurement."""


@contextmanager
def measuring(space: Space, devices: Mapping[str, Device], observer: Observer) -> Iterator[tuple[MeasuringNode, ...]]:
    """Processes of the Ray cluster that was joined which measure networks until the context is left.

    Nothing else of Ray's that needs a processor runs on the nodes of devices meanwhile. A process that dies is begun
    again, on the node that is the device then.

    Args:
        space: Of the networks.
        devices: By the place that the names of their costs begin with, see `hwnas.predictors.several.CostsInPlaces`;
            "" for the run's own. Each is this machine, or the node that has the resource ``device:NAME``.
        observer: Hears how they begin, which may take until nodes are free.

    Raises:
        UnavailableError: No node is the device, more than one is, it is another machine than was registered, or it was
            lost meanwhile.
    """
    groups: dict[str, dict[str, Device]] = {}
    nodes: dict[str, dict[str, Any]] = {}
    for place, device in devices.items():
        if same_machine(device.profile.facts):
            groups.setdefault("", {})[place] = device
        else:
            node = node_of(device.name)
            nodes[node["NodeID"]] = node
            groups.setdefault(node["NodeID"], {})[place] = device
    begun: list[MeasuringNode] = []
    try:
        for id_, own in groups.items():
            begun.append(_begin(nodes.get(id_), own, space))
            _wait(begun[-1], observer)
        yield tuple(begun)
    finally:
        for one in begun:
            ray.kill(one.actor)


def check_nodes(devices: Mapping[str, Device]) -> None:
    """Raises `UnavailableError` where `measuring` would not find the node of a device."""
    for device in devices.values():
        if not same_machine(device.profile.facts):
            node_of(device.name)


@dataclass(frozen=True, slots=True)
class MeasuringNode:
    """A process that measures one network after the other; can be sent to where trials run.

    Attributes:
        name: Of its node, for people.
        id: Of the node that nothing else runs on; "" for this machine.
        places: Of the devices that it is, see `measuring`.
        actor: The process, a `_Measurer`.
        asked: What it measures on and for, in Ray's object store: a process that takes its place needs it, too.
    """

    name: str
    id: str
    places: tuple[str, ...]
    actor: Any
    asked: Any


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of a network.

    Attributes:
        measured: Costs by name; latencies are at the speed at which the device was registered, as far as its table
            tells that.
        lacking: Why some are not there, in words.
    """

    measured: dict[str, float]
    lacking: str


class Measurement:
    """A network that is being measured on all devices.

    Args:
        nodes: Where.
        candidate: Which, as JSON.
    """

    def __init__(self, nodes: Sequence[MeasuringNode], candidate: str) -> None:
        self._tasks = [
            (node.name, place, node.actor.latency_ms.remote(place, candidate, node.asked))
            for node in nodes
            for place in node.places
        ]

    def take(self) -> Measured:
        """What was found; waits for it, but not longer than `PATIENCE_S`."""
        found, lacking = {}, []
        end = time.monotonic() + PATIENCE_S
        for name, place, task in self._tasks:
            try:
                found[f"{place}:{COST}" if place else COST] = ray.get(task, timeout=max(0.0, end - time.monotonic()))
            except RayTaskError as error:
                kind = "" if isinstance(error.cause, HwnasError) else f"{type(error.cause).__name__}: "
                lacking.append(f"{name}: {kind}{error.cause}")
            except GetTimeoutError:
                lacking.append(f"{name}: not measured within {PATIENCE_S / 60:.0f} minutes")
            except RayError as error:
                lacking.append(_lost(name, error))
        self._tasks = []
        return Measured(found, "; ".join(lacking))

    def drop(self) -> None:
        """Forgets what was not taken, and what did not begin."""
        for _, _, task in self._tasks:
            ray.cancel(task)
        self._tasks = []


class _Measurer:
    """Devices, in a process of their node."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._space: Space | None = None
        self._ready: dict[str, tuple[Runtime, BesideAnchors]] = {}

    def check(self, asked: Asked) -> list[str]:
        """Prepares everything; what is worth knowing. Raises `UnavailableError` where this is another machine."""
        devices, spec = asked
        self._space, said = space_from_spec(spec), []
        with priority_of_node(lambda words, share: said.append(words)):
            self._ready = {place: bench_on_node(files, self._space) for place, files in devices.items()}
        return said

    def latency_ms(self, place: str, candidate: str, asked: Asked) -> float:
        """Of a network, at the speed at which the device was registered."""
        if not self._ready:  # a process that took the place of one that died
            self.check(asked)
        assert self._space is not None
        runtime, bench = self._ready[place]
        row = self._space.encode(Candidate.from_json(candidate))
        with priority_of_node():
            item = prepare(self._space, row, runtime).run
            name = f"network {self._space.decode(row).digest}"
            (timing,), slow = bench.measure([item], Protocol(), names=[name])
        return timing.p50_ms / slow


def _begin(node: Mapping[str, Any] | None, devices: Mapping[str, Device], space: Space) -> MeasuringNode:
    """On a node, all of which is taken, or on this machine."""
    if node is None:
        name, resources = "this machine", {}
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": here}
    else:
        name, resources = label(node), whole(node)
        options = {"num_cpus": resources.pop("CPU", 0), "num_gpus": resources.pop("GPU", 0)}
    remote = ray.remote(**options, resources=resources, max_restarts=-1, max_task_retries=0)(_Measurer)
    asked: Asked = {place: device_files(device) for place, device in devices.items()}, space.spec
    return MeasuringNode(name, node["NodeID"] if node else "", tuple(devices), remote.remote(), ray.put(asked))


def _wait(node: MeasuringNode, observer: Observer) -> None:
    """Until it can measure."""
    observer.progress(f"waiting until {node.name} is free", 0.0)
    task = node.actor.check.remote(node.asked)
    try:
        while not ray.wait([task], timeout=POLL_S)[0]:
            pass
        for words in ray.get(task):
            observer.note(f"{node.name}: {words}")
    except RayTaskError as error:
        if isinstance(error.cause, HwnasError):
            raise UnavailableError(f"{node.name}: {error.cause}") from None
        raise
    except RayError as error:
        raise UnavailableError(_lost(node.name, error)) from error


def _lost(name: str, error: RayError) -> str:
    return f"what measures on {name} is lost: {str(error).splitlines()[0].rstrip('.')}"
