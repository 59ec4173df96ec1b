"""Operators timed alone, each as a model of its own, as predictors of kernels measure them.

Registrations do not: per second of measuring, operators timed inside networks teach more. This is what `hwnas bench
latency` compares with, and the cleanest view of a single operator.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from hwnas.latency_tables.beside_anchors import BesideAnchors
from hwnas.latency_tables.profiler import Progress
from hwnas.latency_tables.runtimes.onnx_session import SessionExecutable
from hwnas.latency_tables.runtimes.onnxruntime import OnnxRuntime
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.latency_tables.table import LatencyTable
from hwnas.latency_tables.timing import Protocol
from hwnas.spaces.errors import NoisyMeasurementError
from hwnas.spaces.onnx_graph import IR_VERSION, OPSET, operator_to_onnx
from hwnas.spaces.operator import Operator
from hwnas.spaces.space import Space

CHUNK = 200
"""Operators held in memory and interleaved at a time."""
PROTOCOL = Protocol(burst_s=0.001, max_spread=0.3)


@dataclass(frozen=True, slots=True)
class LoneOperators:
    """What operators take alone, at the speed of a device's table.

    Attributes:
        latency_ms: Of each, a call of the runtime included.
        call_ms: What a call of the runtime takes that computes nothing.
        seconds: Spent on it.
    """

    latency_ms: dict[Operator, float]
    call_ms: float
    seconds: float

    def without_call(self, operator: Operator) -> float:
        """What the operator adds to a call, never less than nothing."""
        return max(0.0, self.latency_ms[operator] - self.call_ms)


def time_alone(
    operators: Sequence[Operator],
    seconds: float,
    runtime: OnnxRuntime,
    space: Space,
    table: LatencyTable,
    steadiness: Steadiness,
    progress: Progress | None = None,
) -> LoneOperators:
    """Times operators in their order until the time is up, interleaved with the space's anchors.

    Args:
        operators: To time; those that there is no time for are left out, and so are chunks that do not repeat.
        seconds: To spend, preparation included.
        runtime, steadiness: Of this machine.
        space, table: Tell by the anchors how slow the machine is now.
        progress: Called with what is being done.
    """
    start = time.perf_counter()
    bench = BesideAnchors(space, table, runtime, steadiness)
    rng = np.random.default_rng(0)
    found: dict[Operator, float] = {}
    calls: list[float] = []
    for first in range(0, len(operators), CHUNK):
        share = (time.perf_counter() - start) / seconds
        if share >= 1:
            break
        if progress:
            progress(f"timing operators alone ({len(found)} done)", share)
        chunk = operators[first : first + CHUNK]
        settings: dict[str, Any] = {"weights_8bit": runtime.weights_8bit, "batch": runtime.batch}
        models = [_nothing(), *(operator_to_onnx(o, **settings) for o in chunk)]
        items = [_executable(runtime, model, rng).run for model in models]
        names = [f"operator {i}" for i in range(-1, len(chunk))]
        try:
            timings, slow = bench.measure(items, PROTOCOL, names=names)
        except NoisyMeasurementError:
            continue
        call, *own = (t.p50_ms / slow for t in timings)
        calls.append(call)
        found.update(zip(chunk, own, strict=True))
    return LoneOperators(found, float(np.median(calls)) if calls else 0.0, time.perf_counter() - start)


def _executable(runtime: OnnxRuntime, model: onnx.ModelProto, rng: np.random.Generator) -> SessionExecutable:
    feed = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [d.dim_value for d in kind.shape.dim]
        integers = kind.elem_type == TensorProto.UINT8
        feed[value.name] = rng.integers(0, 256, shape, np.uint8) if integers else rng.random(shape, np.float32)
    return SessionExecutable(runtime.sessions, model.SerializeToString(), feed)


def _nothing() -> onnx.ModelProto:
    """One value in, the same out."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "nothing", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
