"""Measures networks like those that a search will propose, so that its predictions hold where it looks.

A search ends at the edge of what random networks cover: small, fast, and chosen because the prediction is low. Without
measurements there it would pick what the model underestimates most.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwnas.latency_tables.device import Device
from hwnas.latency_tables.profiler import extend
from hwnas.search.objective import Objective
from hwnas.spaces.space import Rows, Space
from hwnas.spaces.variation import sample_coherent

POOL = 16384


def near_target(space: Space, objective: Objective, rng: np.random.Generator, n: int) -> Rows:
    """``n`` coherent networks whose cost is nearest to the target, from a large pool. Shape (n, decisions)."""
    rows = np.unique(sample_coherent(space, rng, POOL), axis=0)
    distance = np.abs(np.log(objective.cost(rows)[objective.metric] / objective.target))
    nearest: Rows = rows[np.argsort(distance, kind="stable")[: 4 * n]]
    return nearest[rng.permutation(len(nearest))[:n]]


def focus(device: Device, space: Space, objective: Objective, rng: np.random.Generator, n: int) -> Device:
    """The device with ``n`` more networks measured, near the objective's target.

    Raises:
        NoisyMeasurementError: The machine is too busy.
    """
    rows = near_target(space, objective, rng, n)
    table = extend(device.table, space, device.make_runtime(), rows, steadiness=device.steadiness())
    return replace(device, table=table)
