"""Measures networks like those that a search proposes and ends with, so that its predictions hold where it looks.

A search ends at the edge of what random networks cover: small, fast, and chosen because the prediction is low. Without
measurements there it would pick what the model underestimates most. So networks near the target are measured before the
search, and neighbours of its best candidates after it. The candidates themselves are not: what is said of them stays a
prediction.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwnas.latency_tables.device import Device
from hwnas.latency_tables.machine import same_machine
from hwnas.latency_tables.profiler import extend
from hwnas.search.objective import Objective
from hwnas.search.observer import Observer
from hwnas.search.run_folder import Run
from hwnas.spaces.errors import NoisyMeasurementError
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import mutate, sample_coherent

POOL = 16384


def near_target(space: Space, objective: Objective, rng: np.random.Generator, n: int) -> Rows:
    """``n`` coherent networks whose cost is nearest to the target, from a large pool. Shape (n, decisions)."""
    rows = np.unique(sample_coherent(space, rng, POOL), axis=0)
    distance = np.abs(np.log(objective.cost(rows)[objective.metric] / objective.target))
    nearest: Rows = rows[np.argsort(distance, kind="stable")[: 4 * n]]
    return nearest[rng.permutation(len(nearest))[:n]]


def neighbours(space: Space, parents: Rows, tried: Rows, rng: np.random.Generator, n: int) -> Rows:
    """At most ``n`` mutants of the parents (p, decisions), evenly, none of them ``tried``. Shape (n, decisions)."""
    each = 2 * -(-n // len(parents))
    seen = {row.tobytes() for row in tried}
    found = []
    for row in mutate(space, rng, np.tile(parents, (each, 1))):
        if row.tobytes() not in seen:
            seen.add(row.tobytes())
            found.append(row)
    return np.array(found[:n], dtype=parents.dtype).reshape(-1, parents.shape[1])


def can_focus(run: Run, device: Device) -> bool:
    """Whether networks of interest to the search are to be measured, here."""
    return run.config.device.focus_networks > 0 and same_machine(device.profile.facts)


def focus(run: Run, device: Device, rows: Rows, where: str, observer: Observer) -> Device:
    """The device with more networks measured, or as it was where the machine is too busy."""
    observer.progress(f"measuring {len(rows)} networks {where}", 1.0)
    runtime, steadiness = device.make_runtime(), device.steadiness()
    try:
        table = extend(device.table, run.space, runtime, rows, steadiness=steadiness)
    except NoisyMeasurementError as error:
        observer.note(f"no measurements {where}: {error}")
        return device
    return replace(device, table=table)
