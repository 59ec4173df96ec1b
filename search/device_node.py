"""Registers and verifies devices, and measures networks, on the nodes of a Ray cluster that they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from hwnas.latency_tables.beside_anchors import BesideAnchors
from hwnas.latency_tables.device import Device, device_folder, list_devices, load_device
from hwnas.latency_tables.device_files import Files, device_files, device_from_files
from hwnas.latency_tables.machine import same_machine
from hwnas.latency_tables.profiler import Progress, prepare
from hwnas.latency_tables.runtimes import Runtime
from hwnas.latency_tables.timing import Protocol, Timing
from hwnas.predictors.metrics import PredictionError
from hwnas.predictors.registration import covers, verify
from hwnas.predictors.registration_request import RegistrationRequest, run_registration
from hwnas.search.observer import Observer
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import InvalidFileError, InvalidOptionError, UnavailableError
from hwnas.spaces.space import Space


def register_on_node(request: RegistrationRequest, known: Sequence[Device], address: str, observer: Observer) -> Device:
    """As `run_registration`, on the node that is the device; the device is saved here, and nothing there.

    Args:
        request: What to measure.
        known: The devices to build on, see `RegistrationRequest.known_here`; they are sent along.
        address: Of the Ray cluster; ``auto`` for the one on this machine.
        observer: Hears how it goes.

    Raises:
        UnavailableError: There is no such cluster or node, or it was lost.
        HwnasError: As `run_registration`; the message begins with the node's name.
        InvalidFileError: What the node sent is not the device asked for.
        InvalidOptionError: The device was registered, changed or removed here meanwhile; nothing is saved.
    """
    from hwnas.search.ray_cluster import cluster, run_on_device

    sent = [device_files(device) for device in known]
    with cluster(address=address):
        device = device_from_files(run_on_device(request.name, _register, (request, sent), observer))
    if device.name != request.name or device.profile.simulated or not covers(device, request.space):
        raise InvalidFileError(f"the node sent another device than {request.name!r}, registered for this space")
    _refuse_changed(request.name, {d.name: files for d, files in zip(known, sent, strict=True)}.get(request.name))
    device.save(device_folder(request.name))
    return device


def verify_on_node(
    device: Device, networks: int, seed: int, address: str, observer: Observer
) -> list[tuple[Space, PredictionError, float]]:
    """As `hwnas.predictors.registration.verify`, on the node that is the device; arguments as `register_on_node`."""
    from hwnas.search.ray_cluster import cluster, run_on_device

    with cluster(address=address):
        found = run_on_device(device.name, _verify, (device_files(device), networks, seed), observer)
    return [(space_from_spec(json.loads(key)), error, speed) for key, error, speed in found]


def measure_on_node(
    device: Device,
    space: Space,
    candidates: Sequence[Candidate],
    protocol: Protocol,
    attempts: int,
    address: str | None,
    observer: Observer,
    consequence: str,
) -> tuple[list[Timing], float]:
    """Latencies of networks with random weights on the node that is the device; see `BesideAnchors.measure`.

    Raises:
        UnavailableError: There is no such cluster or node, it is another machine than was registered, or it was lost,
            with the ``consequence``.
        NoisyMeasurementError: Figures that do not repeat.
    """
    from hwnas.search.ray_cluster import cluster, run_on_device

    check_address(device, address)
    written = [candidate.to_json() for candidate in candidates]
    arguments = (device_files(device), space.spec, written, protocol, attempts)
    with cluster(address=address):
        timings, slow = run_on_device(device.name, _measure, arguments, observer, consequence)
    return timings, slow


def check_address(device: Device, address: str | None) -> None:
    """Raises what is wrong with measuring on the node that is the device before any node is asked.

    Raises:
        InvalidOptionError: It is simulated.
        UnavailableError: There is no ``address`` of a Ray cluster.
    """
    if device.profile.simulated:
        raise InvalidOptionError(f"{device.name} is simulated: there is nothing to measure; leave measure_trials out")
    if address is None:
        raise UnavailableError(
            f"{device.name} is another machine than this one; to measure on it, give the --address of the Ray cluster "
            f"whose node it is, with the resource device:{device.name}"
        )


def bench_on_node(files: Files, space: Space) -> tuple[Runtime, BesideAnchors]:
    """What measures networks on the device, which this machine must be; raises `UnavailableError` otherwise."""
    device = device_from_files(files)
    if not same_machine(device.profile.facts):
        raise UnavailableError(
            f"this is not the machine that was registered as {device.name}: that one's processor is "
            f"{device.profile.facts.get('processor', 'another')}"
        )
    runtime = device.make_runtime()
    return runtime, BesideAnchors(space, device.table, runtime, device.steadiness())


def _refuse_changed(name: str, sent: Files | None) -> None:
    """Raises where a device is not as it was sent, None for not known: saving would delete what came in between."""
    now = device_files(load_device(name)) if name in list_devices() else None
    if now != sent:
        what = "registered" if sent is None else "removed" if now is None else "changed"
        raise InvalidOptionError(
            f"{name} was {what} here by another command while this one waited for the node or measured; what was "
            "measured does not build on that, and is not saved. Type the command again"
        )


def _register(request: RegistrationRequest, known: Sequence[Files], progress: Progress) -> dict[str, bytes]:
    """On the node."""
    devices = [device_from_files(files) for files in known]
    with TemporaryDirectory(prefix="hwnas-") as folder:
        return device_files(run_registration(request, devices, folder=Path(folder), progress=progress))


def _measure(
    files: Files, spec: dict[str, Any], written: Sequence[str], protocol: Protocol, attempts: int, progress: Progress
) -> tuple[list[Timing], float]:
    """On the node."""
    torch.set_num_threads(1)
    space = space_from_spec(spec)
    runtime, bench = bench_on_node(files, space)
    progress("measuring the networks, interleaved", 0.2)
    candidates = [Candidate.from_json(text) for text in written]
    items = [prepare(space, space.encode(candidate), runtime).run for candidate in candidates]
    names = [f"network {candidate.digest}" for candidate in candidates]
    return bench.measure(items, protocol, names=names, attempts=attempts)


def _verify(files: Files, networks: int, seed: int, progress: Progress) -> list[tuple[str, PredictionError, float]]:
    """On the node."""
    torch.set_num_threads(1)
    progress("measuring fresh networks", 0.0)
    found = verify(device_from_files(files), networks, seed)
    return [(space.key, error, speed) for space, error, speed in found]
