"""Measures networks like those that a search proposes and ends with, so that its predictions hold where it looks.

A search ends at the edge of what random networks cover: small, fast, and chosen because the prediction is low. Without
measurements there it would pick what the model underestimates most. So neighbours of the candidates that look most
promising are measured before the search, and neighbours of its best candidates after it. What is said of the search's
own candidates stays a prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hwnas.latency_tables.device import Device
from hwnas.latency_tables.machine import same_machine
from hwnas.latency_tables.profiler import extend
from hwnas.predictors.cost import CostModel
from hwnas.predictors.registration import measured_rows
from hwnas.search.objective import Objective
from hwnas.search.observer import Observer
from hwnas.search.run_folder import Run
from hwnas.search.warm_start import promising
from hwnas.spaces.errors import NoisyMeasurementError
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import mutate

PARENTS = 12
"""Candidates whose neighbours are measured at a time."""


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


def focus_before(runs: Sequence[Run], device: Device, observer: Observer) -> Device:
    """The device with neighbours of the candidates measured that are most `promising` for all these runs.

    In two rounds: what looks promising after the first is somewhere else.
    """
    run = runs[0]
    rng = np.random.default_rng([run.config.search.seed, 1])
    wanted = run.config.device.focus_networks
    for n in filter(None, (wanted - wanted // 2, wanted // 2)):
        observer.progress("looking for promising networks", 1.0)
        cost = CostModel(run.space, device)
        objective = Objective(cost, tuple(own.goal_with(cost) for own in runs))
        parents = promising(run.space, objective, rng, PARENTS)
        tried = np.concatenate([parents, measured_rows(run.space, device)])
        rows = neighbours(run.space, parents, tried, rng, n)
        known, device = device, _measure(run, device, rows, "beside promising ones", observer)
        if device is known:
            break
    return device


def focus_after(run: Run, parents: Rows, observer: Observer) -> Device:
    """The run's device with neighbours of the parents (p, decisions) measured, none of them a trial's candidate."""
    rng = np.random.default_rng([run.config.search.seed, 2])
    trials = np.array([t.row for t in run.ledger.trials()])
    tried = np.concatenate([trials, measured_rows(run.space, run.device)])
    rows = neighbours(run.space, parents, tried, rng, run.config.device.focus_networks)
    return _measure(run, run.device, rows, "beside the best candidates", observer)


def _measure(run: Run, device: Device, rows: Rows, where: str, observer: Observer) -> Device:
    """The device with more networks measured, or as it was where there are none or the machine is too busy."""
    if not len(rows):
        return device
    observer.progress(f"measuring {len(rows)} networks {where}", 1.0)
    try:
        table = extend(device.table, run.space, device.make_runtime(), rows, steadiness=run.steadiness)
    except NoisyMeasurementError as error:
        observer.note(f"no measurements {where}: {error}")
        return device
    return replace(device, table=table)
