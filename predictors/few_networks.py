"""Registers a device from a few networks, with what the tables of other devices teach of the rest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hwnas.latency_tables.device import Device, device_folder, list_devices, load_device
from hwnas.latency_tables.plan import precision_pairs, sample_networks
from hwnas.latency_tables.profiler import Plan, Progress, extend
from hwnas.latency_tables.runtimes import Runtime
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.latency_tables.table import LatencyTable
from hwnas.predictors.additive import AdditiveModel
from hwnas.predictors.combined import combine
from hwnas.predictors.learnt import physical_model
from hwnas.predictors.metrics import prediction_error
from hwnas.predictors.registration import covers, profile_here, verification
from hwnas.predictors.smoothing import KnownTables
from hwnas.predictors.transfer import MIN_MEASURED, Transfer
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.space import Space

POOL = 600
"""Random networks among which those to measure are chosen."""


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
    plan: Plan | None = None,
    steadiness: Steadiness | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Device:
    """Measures the most informative networks on this machine, and saves it as a device.

    Nothing is held out: the error that is stored is that of each network predicted from the others. What the device
    does with each precision is not found out, for that takes more networks.

    Args:
        name: Of the device.
        space: That all of ``known`` measured.
        known: The devices to transfer from.
        runtime: Of this machine.
        networks: How many to measure.
        seed: Of the networks drawn.
        plan: How to time.
        steadiness: What is known of this machine's speed.
        folder: For the device's files; `device_folder` by default.
        progress: Called with what is being done.

    Raises:
        NoisyMeasurementError: The machine is too busy; nothing is saved.
        UnavailableError: Fewer than four networks.
    """
    if networks <= MIN_MEASURED:
        raise UnavailableError(f"at least {MIN_MEASURED + 1} networks are needed, so that one tells another's error")
    folder, start = folder or device_folder(name), time.perf_counter()
    plan, steadiness, report = plan or Plan(), steadiness or Steadiness(), progress or (lambda *_: None)
    report("choosing networks", 0.0)
    models = {device.name: physical_model(device) for device in known}
    pool = sample_networks(space, np.random.default_rng(seed), POOL, [1.0] * len(precision_pairs(space)))
    transfer = Transfer(_tables(space, pool, list(models.values())))
    chosen = transfer.next_networks(networks)
    report(f"measuring {len(chosen)} networks", 0.1)
    runtime.check_integer_kernels()
    table = extend(LatencyTable(), space, runtime, pool[chosen], plan, steadiness=steadiness)
    measured = np.array([n.latency_ms_p50 for n in table.networks])
    left_out = _left_out(transfer, chosen, measured)
    profile = profile_here(name, runtime, plan, steadiness.usual_ms).model_copy(
        update={
            "registration_seconds": round(time.perf_counter() - start, 1),
            "verified": verification(prediction_error(left_out, measured)),
            "transferred": combine(models, transfer.fit(chosen, measured), measured, left_out),
        }
    )
    device = Device(profile, table)
    device.save(folder)
    return device


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
