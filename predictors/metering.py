"""Measures the energy of a registered device's networks: at once, or with the log of a meter that is brought later."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from hwnas.latency_tables.device import Device, PowerMeter, Verification
from hwnas.latency_tables.energy.meters import Meter
from hwnas.latency_tables.energy.power_log import PowerLog, read_windows
from hwnas.latency_tables.energy.profile import Session, networks_to_meter, table_with_energy
from hwnas.latency_tables.energy.windows import EnergyProtocol, measure_windows
from hwnas.latency_tables.machine import same_machine
from hwnas.latency_tables.profiler import prepare
from hwnas.latency_tables.runtimes import Executable, Runtime
from hwnas.latency_tables.table import NetworkRow
from hwnas.predictors.additive import MIN_NETWORKS
from hwnas.predictors.learnt import energy_model, networks_with_energy
from hwnas.predictors.metrics import prediction_error
from hwnas.predictors.registration import verification
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.space import Space

LOG = "log"
"""The name of a meter that logs on its own."""


def measure_energy(
    device: Device,
    meter: Meter | None,
    networks: int = 64,
    protocol: EnergyProtocol | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> tuple[Device, Session]:
    """Runs networks of each of the device's spaces in measuring windows.

    Returns:
        The device with what the meter counted, or as it was without one, and the windows.

    Args:
        device: Registered on this machine.
        meter: Counts meanwhile; None for a meter that logs on its own, see `read_log`.
        networks: Of each space, a quarter of them held out.
        protocol: How to measure.
        progress: Called with what is being done.

    Raises:
        NoisyMeasurementError: Figures that do not repeat.
        UnavailableError: The device is another machine, or it holds too few networks.
    """
    protocol = protocol or EnergyProtocol()
    runtime = device.make_runtime()
    if not same_machine(device.profile.facts):
        raise UnavailableError(
            f"{device.name} is another machine ({device.profile.facts.get('processor', 'unknown')}): its energy can "
            "only be measured there"
        )
    spaces = {spec: space_from_spec(json.loads(spec)) for spec in dict.fromkeys(n.space for n in device.table.networks)}
    chosen = [n for key in spaces for n in networks_to_meter(device.table, key, networks)]
    if sum(n.role == "fit" for n in chosen) < MIN_NETWORKS:
        raise UnavailableError(
            f"energy of at least {MIN_NETWORKS} networks to learn from is needed, and {device.name} would give "
            f"{sum(n.role == 'fit' for n in chosen)}; ask for more networks, or register the device for longer"
        )
    if progress:
        seconds = protocol.rounds * (len(chosen) * protocol.window_s + protocol.settle_s + protocol.window_s)
        progress(f"measuring the energy of {len(chosen)} networks, about {seconds:.0f} s", 0.0)
    items = [_prepare(spaces[n.space], n, runtime).run for n in chosen]
    windows = measure_windows(items, meter, protocol, progress=progress)
    session = Session(networks=tuple((n.space, n.digest) for n in chosen), windows=tuple(windows), protocol=protocol)
    if meter is None:
        return device, session
    return _with_figures(device, session, meter.name, meter.what), session


def read_log(device: Device, session: Session, log: PowerLog, path: Path) -> Device:
    """The device with the energy that an external meter's log shows in the windows of ``session``.

    Raises:
        NoisyMeasurementError: The log does not cover the windows, or its figures do not repeat.
    """
    windows, offset = read_windows(log, session.windows)
    session = session.model_copy(update={"windows": tuple(windows)})
    return _with_figures(device, session, LOG, f"an external meter, log {path.name}", round(offset, 3))


def verify_energy(device: Device) -> Verification | None:
    """Error of the energy model on held-out networks; None where there is no model or fewer than two of them."""
    held_out = networks_with_energy(device, "check")
    model = energy_model(device)
    if model is None or len(held_out) < 2:
        return None
    predicted = model.of_networks([device.table.operators_of(n) for n in held_out])
    return verification(prediction_error(predicted, np.array([n.energy_mj for n in held_out], dtype=np.float64)))


def _with_figures(
    device: Device, session: Session, meter: str, what: str, clock_offset_s: float | None = None
) -> Device:
    table, idle_watts = table_with_energy(device.table, session.networks, session.windows, session.protocol)
    device = replace(device, table=table)
    about = PowerMeter(
        name=meter,
        what=what,
        windows=session.protocol.rounds,
        window_s=session.protocol.window_s,
        idle_watts=round(idle_watts, 3),
        clock_offset_s=clock_offset_s,
        verified=verify_energy(device),
    )
    return replace(device, profile=device.profile.model_copy(update={"power_meter": about}))


def _prepare(space: Space, network: NetworkRow, runtime: Runtime) -> Executable:
    return prepare(space, space.encode(Candidate.from_json(network.candidate)), runtime)
