"""Whole-network latency prediction, beside simpler ways on the same measurements."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.latency_tables.device import Device, load_device
from hwnas.latency_tables.table import NetworkRow
from hwnas.predictors.learnt import latency_model
from hwnas.predictors.linear import LinearModel
from hwnas.predictors.metrics import PredictionError, prediction_error
from hwnas.spaces.errors import UnavailableError

Floats = NDArray[np.float64]


def latency_figures(device_name: str) -> dict[str, Any]:
    """Errors on the held-out networks: hwnas, a line through MACs, and a line through MACs, operators and bytes."""
    device = load_device(device_name)
    fit, held_out = device.table.with_role("fit"), device.table.with_role("check")
    if len(held_out) < 2:
        raise UnavailableError(f"{device_name} has no held-out networks to compare predictions with")
    target, measured = _latency(fit), _latency(held_out)
    ours = latency_model(device).of_networks([device.table.operators_of(n) for n in held_out])
    verified = device.profile.verified
    return {
        "device": device.profile.facts,
        "registration_seconds": device.profile.registration_seconds,
        "networks_measured": len(fit),
        "registered_as": verified.model_dump() if verified else None,
        "hwnas": _figures(prediction_error(ours, measured)),
        "macs": _figures(prediction_error(_linear(device, fit, held_out, target, 1), measured)),
        "macs, operators, bytes": _figures(prediction_error(_linear(device, fit, held_out, target, 3), measured)),
    }


def _latency(networks: list[NetworkRow]) -> Floats:
    return np.array([n.latency_ms_p50 for n in networks])


def _linear(device: Device, fit: list[NetworkRow], held_out: list[NetworkRow], target: Floats, columns: int) -> Floats:
    """Least squares of the relative error on the first ``columns`` of MACs, operators and bytes moved."""

    def amounts(networks: list[NetworkRow]) -> Floats:
        rows = []
        for network in networks:
            operators = device.table.operators_of(network)
            moved = sum(o.in_bytes + o.out_bytes + o.weight_bytes for o in operators)
            rows.append([sum(o.macs for o in operators), len(operators), moved][:columns])
        return np.array(rows, dtype=np.float64)

    return LinearModel.fit(amounts(fit), target).predict(amounts(held_out))


def _figures(error: PredictionError) -> dict[str, float]:
    return {
        "mape": round(error.mape, 4),
        "kendall_tau": round(error.kendall_tau, 4),
        "within_10_percent": round(error.within_10_percent, 4),
        "networks": error.count,
    }
