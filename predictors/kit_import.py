"""Makes a device of what a measuring kit brought back, as a registration would have."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from hwnas.latency_tables.device import Device, Profile, device_folder, list_devices
from hwnas.latency_tables.energy.power_log import PowerLog
from hwnas.latency_tables.energy.profile import Session
from hwnas.latency_tables.energy.windows import EnergyProtocol, Window
from hwnas.latency_tables.kit.outcome import Outcome, read_outcome
from hwnas.predictors.metering import read_log
from hwnas.predictors.registration import check, verification
from hwnas.spaces.errors import InvalidFileError, InvalidOptionError


def import_results(
    path: Path, *, kit: Path | None = None, power: Path | None = None, name: str | None = None
) -> Device:
    """Makes and saves the device that a board measured with a kit; nothing is written where anything is wrong.

    Args:
        path: ``results.zip`` from the board.
        kit: The kit, where the plan within the results is not to be trusted.
        power: The log of a power meter during ``measure.py --energy``.
        name: Of the device; that of the plan by default.

    Raises:
        InvalidFileError: Files that are no such results, or a name that is no name.
        InvalidOptionError: A device of that name exists.
        UnavailableError: Too few networks were measured.
        NoisyMeasurementError: The power log does not cover the windows, or its figures do not repeat.
    """
    outcome = read_outcome(path, kit)
    name = outcome.plan.name if name is None else name
    folder = device_folder(name)
    if name in list_devices():
        raise InvalidOptionError(f"there is a device {name!r} already: choose another name with --name")
    device = _device(name, outcome)
    session = _session(outcome)
    if power is not None:
        if session is None:
            raise InvalidFileError(f"{path} has no measuring windows: run 'python measure.py --energy' on the board")
        device = read_log(device, session, PowerLog.read(power), power)
    if session is not None:
        session.save(folder)
    device.save(folder)
    return device


def _device(name: str, outcome: Outcome) -> Device:
    results, found = outcome.results, outcome.profiled()
    profile = Profile(
        name=name,
        runtime="onnxruntime",
        runtime_settings=results.settings.model_dump(),
        facts=dict(results.facts),
        protocol=outcome.plan.protocol.model_dump(),
        probe_ms=round(found.probe_ms, 6),
        registered=_moment(results.finished),
        registration_seconds=round(results.seconds, 1),
        precisions=found.precisions,
        off_speed=found.off_speed,
        off_speed_left_out=found.left_out,
    )
    device = Device(profile, found.table)
    checked = check(device, outcome.space)
    assert checked is not None, "a kit's device is not simulated"
    verified = verification(checked.error)
    return replace(device, profile=profile.model_copy(update={"verified": verified}))


def _session(outcome: Outcome) -> Session | None:
    energy = outcome.results.energy
    if energy is None:
        return None
    return Session(
        networks=tuple((outcome.space.key, digest) for digest in energy.networks),
        windows=tuple(Window(w.item, w.start_s, w.end_s, w.runs) for w in energy.windows),
        protocol=EnergyProtocol(**energy.protocol.model_dump()),
    )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
