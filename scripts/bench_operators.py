"""Operators timed alone, for `hwnas bench latency`: networks as their sums, and operators predicted from others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.latency_tables.device import Device
from hwnas.latency_tables.lone_operators import LoneOperators, time_alone
from hwnas.latency_tables.machine import same_machine
from hwnas.latency_tables.profiler import Progress
from hwnas.latency_tables.runtimes.onnxruntime import OnnxRuntime
from hwnas.predictors.additive import AdditiveModel, Observed
from hwnas.predictors.forest import MIN_OPERATORS, error_law, operators_left_out
from hwnas.predictors.kernel_forests import KernelForests
from hwnas.predictors.learnt import physical_model
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.operator import Operator

Floats = NDArray[np.float64]
Networks = Sequence[Sequence[Operator]]

RESOLVED_MS = 0.001
"""Of operators that take less, a relative error says nothing: profilers count whole microseconds."""
COVERED = 2.0
"""Standard deviations."""


@dataclass(frozen=True, slots=True)
class OperatorTiming:
    """Times operators alone: those of the held-out networks, and as long again those of other networks.

    Attributes:
        seconds: For each of both; None for as long as the registration took.
    """

    seconds: float | None = None

    def figures(
        self, device: Device, progress: Progress | None
    ) -> tuple[dict[str, Floats], dict[str, float], dict[str, Any]]:
        """Latencies of the held-out networks by several ways, errors of operators left out, and what was timed.

        Raises:
            UnavailableError: The device is another machine, or does not run ONNX Runtime.
        """
        runtime = device.make_runtime()
        if not isinstance(runtime, OnnxRuntime) or not same_machine(device.profile.facts):
            raise UnavailableError(
                f"operators of {device.name} can be timed alone only with ONNX Runtime, on the device itself; "
                "--stored compares the other ways on what is stored"
            )
        table = device.table
        held_out = [table.operators_of(n) for n in table.with_role("check")]
        own = list(dict.fromkeys(o for operators in held_out for o in operators))
        others = list(dict.fromkeys(o for n in table.with_role("fit") for o in table.operators_of(n)))
        np.random.default_rng(0).shuffle(others)
        space = space_from_spec(json.loads(table.networks[0].space))
        seconds = self.seconds or device.profile.registration_seconds
        steadiness = device.steadiness()
        of_held_out, drawn = (
            time_alone(operators, seconds, runtime, space, table, steadiness, progress) for operators in (own, others)
        )
        if min(len(of_held_out.latency_ms), len(drawn.latency_ms)) < MIN_OPERATORS:
            raise UnavailableError("the machine was too busy to time operators alone; close other programs")
        observed = [(o, drawn.without_call(o), 1) for o in drawn.latency_ms]
        about = {
            "seconds": round(of_held_out.seconds + drawn.seconds, 1),
            "of_held_out_networks": len(of_held_out.latency_ms),
            "share_of_held_out_networks": round(len(of_held_out.latency_ms) / len(own), 4),
            "of_other_networks": len(drawn.latency_ms),
            "call_ms": round(drawn.call_ms, 6),
        }
        return _sums(held_out, of_held_out, drawn), left_out_figures(physical_model(device), observed), about


def _sums(networks: Networks, timed: LoneOperators, drawn: LoneOperators) -> dict[str, Floats]:
    forests = KernelForests.fit(drawn.latency_ms)
    operators = list(dict.fromkeys(o for network in networks for o in network))
    predicted = dict(zip(operators, forests.of_operators(operators).tolist(), strict=True))
    summed = {o: timed.latency_ms.get(o, predicted[o]) for o in operators}
    ways = {
        "operators alone, summed": (summed, timed.call_ms),
        "forest per kind (nn-Meter)": (predicted, drawn.call_ms),
    }
    sums = {}
    for name, (cost, call_ms) in ways.items():
        sums[name] = np.array([sum(cost[o] for o in network) for network in networks])
        once = [sum(cost[o] - call_ms for o in network) + call_ms for network in networks]
        sums[f"{name}, the call counted once"] = np.array(once)
    return sums


def left_out_figures(additive: AdditiveModel, observed: Observed) -> dict[str, float]:
    """Errors of operators predicted by forests that did not learn from them, a fifth left out at a time.

    The law of the standard deviation is learnt from every other operator, and its coverage counted on the rest.
    Empty where too few operators were timed.
    """
    if len(observed) < 2 * MIN_OPERATORS:
        return {}
    cost = np.array([c for _, c, _ in observed])
    typical = float(cost.mean())
    predicted = operators_left_out(additive, observed, typical)
    learnt = np.arange(len(cost)) % 2 == 0
    share, floor = error_law(predicted[learnt], cost[learnt], typical)
    std = np.hypot(share * predicted, floor * typical)
    resolved = cost >= RESOLVED_MS
    errors = np.abs(predicted / np.where(resolved, cost, 1.0) - 1)[resolved]
    return {
        "operators": len(cost),
        "resolved": int(resolved.sum()),
        "mape": round(float(errors.mean()), 4),
        "median_error": round(float(np.median(errors)), 4),
        "coverage_of_2_std": round(float((np.abs(predicted - cost) <= COVERED * std)[~learnt].mean()), 4),
    }
