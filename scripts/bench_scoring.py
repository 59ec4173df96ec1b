"""Candidates scored per second."""

from __future__ import annotations

import json
import time
from statistics import median
from typing import Any

import numpy as np

from hwnas.latency_tables.device import load_device
from hwnas.predictors.cost import CostModel
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import UnavailableError


def scoring_figures(device_name: str, batch: int, repeats: int) -> dict[str, Any]:
    """Of each of the device's spaces: speed of a batch, compile time, and agreement with the per-operator sum."""
    device = load_device(device_name)
    if not device.table.networks:
        raise UnavailableError(f"{device_name} was measured for no space: there is nothing to score")
    figures = {}
    for spec in dict.fromkeys(n.space for n in device.table.networks):
        space = space_from_spec(json.loads(spec))
        start = time.perf_counter()
        cost = CostModel(space, device)
        compile_s = time.perf_counter() - start
        rows = space.sample(np.random.default_rng(0), batch)
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            costs = cost(rows)
            seconds.append(time.perf_counter() - start)
        workloads = [space.workload_of_row(row) for row in rows[:1000]]
        direct = cost.latency.of_networks([w.operators for w in workloads])
        figures[f"{space.name} {space.input_shape}"] = {
            "decisions": len(space.decisions),
            "slots": len(space.slots),
            "candidates_per_second_median": round(batch / median(seconds)),
            "compile_seconds": round(compile_s, 2),
            "largest_relative_difference_to_operator_sum": float(
                np.abs(costs["latency_ms"][: len(direct)] / direct - 1).max()
            ),
            "macs_equal": bool((costs["macs"][: len(direct)] == [w.macs for w in workloads]).all()),
        }
    return figures
