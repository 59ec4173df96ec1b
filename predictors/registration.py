"""Registers a device for a space: measure, learn, check on networks held out, save."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np

from hwnas.latency_tables.device import Device, PeakMemory, Profile, Verification, device_folder
from hwnas.latency_tables.journal import Journal
from hwnas.latency_tables.machine import machine_facts, same_machine
from hwnas.latency_tables.profiler import Plan, Progress, prepare, profile_space
from hwnas.latency_tables.runtimes import Runtime, make_runtime
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.latency_tables.timing import measure
from hwnas.predictors.learnt import latency_model, memory_model, networks_with_memory, operators_with_held
from hwnas.predictors.metrics import PredictionError, prediction_error
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.space import Rows, Space

UNFINISHED = "unfinished"
"""The folder, in that of a device, of what was measured for registrations that did not end."""


@dataclass(frozen=True, slots=True)
class Check:
    """Whole networks that the cost model never saw: predictions and measurements in milliseconds, shape (n,)."""

    predicted_ms: np.ndarray
    measured_ms: np.ndarray

    @property
    def error(self) -> PredictionError:
        """Their comparison."""
        return prediction_error(self.predicted_ms, self.measured_ms)


def covers(device: Device, space: Space) -> bool:
    """Whether the device knows what networks of this very space cost: they were measured, or it is simulated."""
    return device.accelerator is not None or any(n.space == space.key for n in device.table.networks)


def measured_rows(space: Space, device: Device) -> Rows:
    """The networks of a space that were measured on a device. Shape (n, decisions)."""
    own = [n for n in device.table.networks if n.space == space.key]
    rows = [space.encode(Candidate.from_json(n.candidate)) for n in own]
    return np.array(rows, dtype=np.int16).reshape(-1, len(space.decisions))


def register(
    name: str,
    space: Space,
    *,
    runtime: Runtime | None = None,
    plan: Plan | None = None,
    seed: int = 0,
    known: Device | None = None,
    steadiness: Steadiness | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    note: Callable[[str], object] | None = None,
) -> Device:
    """Measures this machine as a device for ``space``, and saves it.

    What is measured is kept in the folder from the start: where this is cut off, the same call goes on from there.

    Args:
        name: Of the device.
        space: Whose networks to measure.
        runtime: ONNX Runtime on one CPU thread by default; that of ``known`` where it is given.
        plan: How much to measure.
        seed: Of the networks drawn.
        known: The device as registered so far, for other spaces; its measurements are kept.
        steadiness: What is known of this machine's speed; that of ``known`` by default.
        folder: For its files; `device_folder` by default.
        progress: Called with what is being done.
        note: Called with what is taken up of earlier sessions; ``progress`` by default.

    Raises:
        NoisyMeasurementError: The machine is too busy; no device is saved.
        UnavailableError: ``known`` was measured on another machine or with another protocol, or something else is
            unfinished; see `Journal`.
    """
    folder = folder or device_folder(name)
    plan = plan or Plan()
    if known is not None:
        _require_same_conditions(name, known, plan)
    runtime = runtime or (known.make_runtime() if known else make_runtime("onnxruntime"))
    report = progress or (lambda *_: None)
    report("checking integer kernels", 0.0)
    runtime.check_integer_kernels()
    journal = _journal(folder, space, runtime, plan, seed)
    if journal.found:
        (note or (lambda text: report(text, 0.0)))(journal.found)
    steadiness = steadiness or (known.steadiness() if known else Steadiness())
    found = profile_space(
        space,
        runtime,
        np.random.default_rng(seed),
        plan,
        known=known.table if known else None,
        steadiness=steadiness,
        journal=journal,
        progress=progress,
    )
    profile = profile_here(name, runtime, plan, found.probe_ms).model_copy(
        update={
            "precisions": found.precisions,
            "off_speed": found.off_speed,
            "off_speed_left_out": found.left_out,
            "power_meter": known.profile.power_meter if known else None,
        }
    )
    device = Device(profile, found.table)
    checked = check(device, space)
    assert checked is not None
    verified = verification(checked.error)
    seconds = round(journal.spent_s, 1)
    found_out = {"verified": verified, "peak_memory": check_memory(device, space), "registration_seconds": seconds}
    device = replace(device, profile=profile.model_copy(update=found_out))
    device.save(folder)
    journal.remove()
    return device


def _require_same_conditions(name: str, known: Device, plan: Plan) -> None:
    """Raises `UnavailableError` where what is measured now must not stand beside what a device holds."""
    if not same_machine(known.profile.facts):
        raise UnavailableError(
            f"device {name!r} was measured on another machine ({known.profile.facts.get('processor', 'unknown')}) and "
            f"not for this space; run 'hwnas device register {name}' with this space there"
        )
    if known.profile.protocol not in ({}, asdict(plan.protocol)):
        raise UnavailableError(
            f"device {name!r} was measured with another protocol ({known.profile.protocol}), and figures of both must "
            "not be mixed; register this space under another name, or remove the device's folder and register it anew"
        )


def _journal(folder: Path, space: Space, runtime: Runtime, plan: Plan, seed: int) -> Journal:
    """Of the registration for a space; how long it takes may change from session to session."""
    protocol = asdict(plan.protocol)
    amounts = {name: value for name, value in asdict(plan).items() if name not in ("seconds", "protocol")}
    conditions = machine_facts() | runtime.facts() | runtime.settings() | protocol | amounts | {"seed": seed}
    return Journal(
        folder / UNFINISHED / sha256(space.key.encode()).hexdigest()[:16], {"space": space.key, **conditions}
    )


def profile_here(name: str, runtime: Runtime, plan: Plan, probe_ms: float) -> Profile:
    """The profile of this machine with a runtime, as far as it does not depend on what was found out."""
    return Profile(
        name=name,
        runtime=runtime.name,
        runtime_settings=dict(runtime.settings()),
        facts=machine_facts() | runtime.facts(),
        protocol=asdict(plan.protocol),
        probe_ms=round(probe_ms, 6),
        registered=timestamp(),
        registration_seconds=0.0,
    )


def check(device: Device, space: Space) -> Check | None:
    """Predicts the device's held-out networks of a space; of a transferred model, each network from the others.

    None where the device is simulated and has none.

    Raises:
        UnavailableError: The device holds no such networks.
    """
    if device.accelerator:
        return None
    if (transferred := device.profile.transferred) is not None:
        measured = [n for n in device.table.with_role("fit") if n.space == space.key][: transferred.networks]
        if len(measured) == transferred.networks:
            return Check(np.array(transferred.left_out_ms), np.array([n.latency_ms_p50 for n in measured]))
    held_out = [n for n in device.table.with_role("check") if n.space == space.key]
    if len(held_out) < 2:
        raise UnavailableError(f"device {device.name!r} has no held-out networks of space {space.name!r}")
    model = latency_model(device)
    predicted = model.of_networks([device.table.operators_of(n) for n in held_out])
    return Check(predicted, np.array([n.latency_ms_p50 for n in held_out]))


def check_memory(device: Device, space: Space) -> PeakMemory | None:
    """Predicts what the device's held-out networks of a space allocate; None where that was not measured."""
    held_out = [n for n in networks_with_memory(device, "check") if n.space == space.key]
    model = memory_model(device)
    if model is None or len(held_out) < 2:
        return None
    networks = operators_with_held(held_out)
    measured = np.array([n.peak_memory_bytes for n in held_out], dtype=np.float64)
    lifetimes = np.array([max(o.live_bytes for o in operators) for operators in networks], dtype=np.float64)
    return PeakMemory(
        verified=verification(prediction_error(model.of_networks(networks), measured)),
        lifetimes_tau=round(prediction_error(lifetimes, measured).kendall_tau, 4),
    )


def verification(error: PredictionError) -> Verification:
    """An error as a profile stores it."""
    return Verification(
        networks=error.count,
        mape=round(error.mape, 5),
        kendall_tau=round(error.kendall_tau, 4),
        within_10_percent=round(error.within_10_percent, 4),
        when=timestamp(),
    )


def timestamp() -> str:
    """Date and time, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def verify(device: Device, networks: int, seed: int) -> Iterator[tuple[Space, PredictionError, float]]:
    """Measures fresh random networks of each of the device's spaces and compares them with its predictions.

    Yields:
        The space, the error, and how slow the machine is now relative to when it was registered (the median ratio of
        measurement to prediction), which the error includes.
    """
    runtime = device.make_runtime()
    model = latency_model(device)
    for spec in dict.fromkeys(n.space for n in device.table.networks):
        space = space_from_spec(json.loads(spec))
        rows = space.sample(np.random.default_rng(seed), networks)
        items = [prepare(space, row, runtime).run for row in rows]
        measured = measure(items, steadiness=device.steadiness())
        predicted = model.of_networks([space.workload_of_row(row).operators for row in rows])
        actual = np.array([t.p50_ms for t in measured])
        yield space, prediction_error(predicted, actual), float(np.median(actual / predicted))
