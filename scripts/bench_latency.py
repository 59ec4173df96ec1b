"""Whole-network latency prediction, beside simpler ways on the same held-out networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.latency_tables.device import Device, load_device
from hwnas.latency_tables.profiler import Progress
from hwnas.latency_tables.table import LatencyTable, NetworkRow
from hwnas.predictors.additive import MIN_NETWORKS, AdditiveModel
from hwnas.predictors.learnt import latency_model, operators_inside, physical_model
from hwnas.predictors.linear import LinearModel
from hwnas.predictors.metrics import PredictionError, prediction_error
from hwnas.scripts.bench_operators import OperatorTiming, left_out_figures
from hwnas.spaces.errors import UnavailableError

Floats = NDArray[np.float64]
Figures = dict[str, float]

STEPS = (20, 30, 48, 72, 108, 160, 240, 360, 540)
"""Networks learnt from, in the curve of error against seconds."""


def latency_figures(
    device_name: str, timing: OperatorTiming | None, progress: Progress | None = None
) -> dict[str, Any]:
    """Errors on the held-out networks of a device's first space.

    Args:
        device_name: Registered for one space at least.
        timing: Times operators alone, for the ways that sum these, for as long as the registration took; None leaves
            these ways out.
        progress: Called with what is being done.

    Raises:
        UnavailableError: The device has no held-out networks, or is another machine.
    """
    device = load_device(device_name)
    spaces = {n.space for n in device.table.networks}
    device = _of_first_space(device)
    fit, held_out = device.table.with_role("fit"), device.table.with_role("check")
    if len(held_out) < 2 or len(fit) < MIN_NETWORKS:
        raise UnavailableError(f"{device_name} has no held-out networks to compare predictions with")
    measured = _latency(held_out)
    networks = [device.table.operators_of(n) for n in held_out]
    ways = {
        "hwnas": latency_model(device).of_networks(networks),
        "whole networks, no operators timed": AdditiveModel.fit(
            [device.table.operators_of(n) for n in fit], _latency(fit).tolist()
        ).of_networks(networks),
        "line through MACs": _linear(device, fit, held_out, 1),
        "line through MACs, operators, bytes": _linear(device, fit, held_out, 3),
    }
    operators = {"inside networks": left_out_figures(physical_model(device), operators_inside(device))}
    about: dict[str, Any] = {}
    if timing is not None:
        sums, operators["alone"], about = timing.figures(device, progress)
        ways |= sums
    verified = device.profile.verified
    return {
        "device": device.profile.facts,
        "registration_seconds": device.profile.registration_seconds,
        "networks_measured": len(fit),
        "networks_held_out": len(held_out),
        "registered_as": verified.model_dump() if verified else None,
        "ways": {name: _figures(prediction_error(predicted, measured)) for name, predicted in ways.items()},
        "operators_timed_alone": about,
        "operators_left_out": {name: figures for name, figures in operators.items() if figures},
        # The seconds of a device registered for several spaces are those of the last one.
        "by_seconds": _curve(device, networks, measured) if len(spaces) == 1 else [],
    }


def _of_first_space(device: Device) -> Device:
    networks = tuple(n for n in device.table.networks if n.space == device.table.networks[0].space)
    return replace(device, table=LatencyTable(device.table.operators, networks))


def _curve(device: Device, networks: Sequence[Sequence[Any]], measured: Floats) -> list[dict[str, float]]:
    """Errors after the first networks of the registration.

    Seconds are the registration's, shared among all networks alike. Of operators timed inside several networks the
    table holds the median over all of them, later ones included.
    """
    fit, held_out = device.table.with_role("fit"), device.table.with_role("check")
    seconds = device.profile.registration_seconds / len(device.table.networks)
    rows = []
    for n in [*(s for s in STEPS if s < len(fit)), len(fit)]:
        known = {i for network in fit[:n] for i in network.operators}
        operators = [
            row if i in known else replace(row, latency_ms_p50=None) for i, row in enumerate(device.table.operators)
        ]
        part = replace(device, table=LatencyTable(tuple(operators), (*fit[:n], *held_out)))
        try:
            predicted = latency_model(part).of_networks(networks)
        except UnavailableError:
            continue  # so few networks that they lack a kind of operator
        error = prediction_error(predicted, measured)
        rows.append({"seconds": round(seconds * (n + len(held_out)), 1), "networks": n, **_figures(error)})
    return rows


def _latency(networks: list[NetworkRow]) -> Floats:
    return np.array([n.latency_ms_p50 for n in networks])


def _linear(device: Device, fit: list[NetworkRow], held_out: list[NetworkRow], columns: int) -> Floats:
    """Least squares of the relative error on the first ``columns`` of MACs, operators and bytes moved."""

    def amounts(networks: list[NetworkRow]) -> Floats:
        rows = []
        for network in networks:
            operators = device.table.operators_of(network)
            moved = sum(o.in_bytes + o.out_bytes + o.weight_bytes for o in operators)
            rows.append([sum(o.macs for o in operators), len(operators), moved][:columns])
        return np.array(rows, dtype=np.float64)

    return LinearModel.fit(amounts(fit), _latency(fit)).predict(amounts(held_out))


def _figures(error: PredictionError) -> Figures:
    return {
        "mape": round(error.mape, 4),
        "kendall_tau": round(error.kendall_tau, 4),
        "within_10_percent": round(error.within_10_percent, 4),
    }
