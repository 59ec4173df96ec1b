"""Registers a device from a few networks, with what the tables of other devices teach of the rest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hwnas.latency_tables.device import Device, device_folder, list_devices, load_device
from hwnas.latency_tables.machine import same_machine
from hwnas.latency_tables.plan import precision_pairs, sample_networks
from hwnas.latency_tables.profiler import Plan, Progress, extend
from hwnas.latency_tables.runtimes import Runtime
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.latency_tables.table import LatencyTable
from hwnas.latency_tables.transferred import ErrorBars, Outlook, Wanted
from hwnas.predictors.additive import AdditiveModel
from hwnas.predictors.combined import combine
from hwnas.predictors.learnt import physical_model
from hwnas.predictors.metrics import prediction_error
from hwnas.predictors.registration import covers, measured_rows, profile_here, verification
from hwnas.predictors.smoothing import KnownTables
from hwnas.predictors.transfer import MIN_MEASURED, Indexes, Transfer, Transferred
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.space import Rows, Space

POOL = 600
"""Random networks among which those to measure are chosen."""
MORE = 10
"""Networks that a registered device asks for next."""


def known_devices(space: Space, names: Sequence[str] = ()) -> list[Device]:
    """The registered devices that measured a space themselves, or those of the names given.

    Raises:
        UnavailableError: There is none, or one of those named did not measure it.
        UnknownNameError: One of those named is not registered.
    """
    devices = [load_device(name) for name in dict.fromkeys(names or list_devices())]
    fit = [d for d in devices if covers(d, space) and d.profile.transferred is None]
    if names and len(fit) < len(devices):
        other = next(d.name for d in devices if d not in fit)
        raise UnavailableError(
            f"device {other!r} has not measured this very space itself: shape, classes and joint dimensions must be "
            "the same; choose others, or leave out --known"
        )
    if not fit:
        raise UnavailableError(
            "no registered device has measured this very space, so nothing can be transferred; register this machine "
            "without --from-known, or copy the folder of a device into the folder of devices"
        )
    return fit


def register_from_known(
    name: str,
    space: Space,
    known: Sequence[Device],
    *,
    runtime: Runtime,
    networks: int = 10,
    seed: int = 0,
    own: Device | None = None,
    plan: Plan | None = None,
    steadiness: Steadiness | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Device:
    """Measures the most informative networks on this machine, and saves it as a device.

    Nothing is held out: the error that is stored is that of each network predicted from the others. What the device
    does with each precision is not found out, for that takes more networks.

    Where the device was registered so before, it keeps its networks, and those are measured that tell most beside them.
    That the machine still runs at the speed of that time is for the steadiness probe to tell.

    Args:
        name: Of the device.
        space: That all of ``known`` measured.
        known: The devices to transfer from.
        runtime: Of this machine.
        networks: How many the device is to have measured.
        seed: Of the networks drawn.
        own: The device as registered so far, from few networks of the same space.
        plan: How to time.
        steadiness: What is known of this machine's speed; that of ``own`` by default.
        folder: For the device's files; `device_folder` by default.
        progress: Called with what is being done.

    Raises:
        NoisyMeasurementError: The machine is too busy; nothing is saved.
        UnavailableError: Fewer than four networks, or ``own`` was measured on another machine.
    """
    if networks <= MIN_MEASURED:
        raise UnavailableError(f"at least {MIN_MEASURED + 1} networks are needed, so that one tells another's error")
    if own is not None and not same_machine(own.profile.facts):
        raise UnavailableError(
            f"{name} was measured on another machine ({own.profile.facts.get('processor', 'unknown')}): go on there"
        )
    folder, start = folder or device_folder(name), time.perf_counter()
    plan, report = plan or Plan(), progress or (lambda *_: None)
    steadiness = steadiness or (own.steadiness() if own else Steadiness())
    report("choosing networks", 0.0)
    models = {device.name: physical_model(device) for device in known}
    rows, before = _pool(space, seed, own)
    transfer = Transfer(_tables(space, rows, list(models.values())))
    chosen = np.concatenate([before, transfer.next_networks(networks - len(before), measured=before)])
    new = rows[chosen[len(before) :]]
    report(f"measuring {len(new)} networks", 0.1)
    runtime.check_integer_kernels()
    table = extend(own.table if own else LatencyTable(), space, runtime, new, plan, steadiness=steadiness)
    measured = np.array([n.latency_ms_p50 for n in table.networks])
    left_out = _left_out(transfer, chosen, measured)
    model = combine(models, transfer.fit(chosen, measured), measured, left_out)
    seconds = time.perf_counter() - start + (own.profile.registration_seconds if own else 0.0)
    profile = profile_here(name, runtime, plan, steadiness.usual_ms).model_copy(
        update={
            "registration_seconds": round(seconds, 1),
            "verified": verification(prediction_error(left_out, measured)),
            "power_meter": own.profile.power_meter if own else None,
            "transferred": model.model_copy(
                update={"outlook": _outlook(transfer, chosen, measured, space, rows, seed)}
            ),
        }
    )
    device = Device(profile, table)
    device.save(folder)
    return device


def _pool(space: Space, seed: int, own: Device | None) -> tuple[Rows, Indexes]:
    """Distinct random networks, those that the device has measured first; and the places of these."""
    drawn = sample_networks(space, np.random.default_rng(seed), POOL, [1.0] * len(precision_pairs(space)))
    measured = measured_rows(space, own) if own else drawn[:0]
    rows = np.concatenate([measured, drawn])
    _, first = np.unique(rows, axis=0, return_index=True)
    return rows[np.sort(first)], np.arange(len(measured))


def _outlook(
    transfer: Transfer, chosen: Indexes, measured_ms: np.ndarray, space: Space, rows: Rows, seed: int
) -> Outlook:
    """How certain the device is of the rows, and what the networks to measure next would bring."""
    wanted = transfer.next_networks(MORE, measured=chosen)
    now, then = (transfer.fit(chosen, measured_ms, planned) for planned in ((), wanted))
    return Outlook(
        now=_error_bars(now),
        then=_error_bars(then),
        wanted=tuple(
            Wanted(
                digest=space.decode(rows[i]).digest,
                latency_ms=float(now.latency_ms[i]),
                latency_ms_std=float(now.latency_ms_std[i]),
            )
            for i in wanted
        ),
        seed=seed,
    )


def _error_bars(found: Transferred) -> ErrorBars:
    median, p90 = np.quantile(found.latency_ms_std / found.latency_ms, (0.5, 0.9))
    return ErrorBars(median=float(median), p90=float(p90))


def _tables(space: Space, rows: np.ndarray, models: Sequence[AdditiveModel]) -> KnownTables:
    """What the known devices' models say of the rows; their noise is what those models miss."""
    workloads = [space.workload_of_row(row).operators for row in rows]
    latency_ms = np.column_stack([model.of_networks(workloads) for model in models])
    mean = latency_ms.mean(axis=0)
    log_noise = 2 * np.log([max(model.relative_std, 1e-3) for model in models])
    return KnownTables(latency_ms / mean, mean, log_noise)


def _left_out(transfer: Transfer, chosen: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Each network as predicted from the others, shape (k,)."""
    others = ((np.delete(chosen, i), np.delete(measured, i)) for i in range(len(chosen)))
    found = (transfer.fit(index, ms).latency_ms for index, ms in others)
    return np.array([latency[own] for latency, own in zip(found, chosen, strict=True)])
