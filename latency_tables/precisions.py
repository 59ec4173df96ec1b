"""Which bit widths a device runs natively, and which it only stores or emulates: found by measuring."""

from __future__ import annotations

import numpy as np
from hwnas.latency_tables.device import Execution, Precision
from hwnas.latency_tables.profiler import prepare
from hwnas.latency_tables.runtimes import OperatorTime, Runtime
from hwnas.latency_tables.timing import Protocol, measure
from hwnas.spaces.decision import Option
from hwnas.spaces.operator import Operator, stored_bits
from hwnas.spaces.space import Space

FLOAT = 32


def measure_precisions(space: Space, runtime: Runtime, protocol: Protocol | None = None) -> tuple[Precision, ...]:
    """Runs the space's reference network in every pair of weight and activation bits that the space offers.

    First and last layers take the nearest bits they offer. All pairs are timed interleaved.
    """
    pairs = [(w, a) for w in _options(space, "weight_bits") for a in _options(space, "act_bits")]
    rows = [_uniform(space, w, a) for w, a in pairs]
    executables = [prepare(space, row, runtime) for row in rows]
    timings = measure([e.run for e in executables], protocol, names=[f"the network of {w}/{a} bits" for w, a in pairs])
    base = timings[pairs.index((FLOAT, FLOAT))].p50_ms if (FLOAT, FLOAT) in pairs else timings[-1].p50_ms
    result = []
    for (weight_bits, act_bits), row, executable, timing in zip(pairs, rows, executables, timings, strict=True):
        times = executable.operator_times(5)
        inner = [
            times[o.name]
            for o in space.workload_of_row(row).operators
            if o.kind == "conv" and (o.weight_bits, o.in_bits, o.out_bits) == (weight_bits, act_bits, act_bits)
            if o.name in times
        ]
        result.append(
            Precision(
                weight_bits=weight_bits,
                act_bits=act_bits,
                execution=classify(weight_bits, act_bits, inner, runtime),
                relative_latency=round(timing.p50_ms / base, 4),
                kernels=tuple(sorted({k for t in inner for k in t.kernels})),
            )
        )
    return tuple(result)


def classify(weight_bits: int, act_bits: int, layers: list[OperatorTime], runtime: Runtime) -> Execution:
    """How layers of a precision ran.

    Native is an integer kernel alone (changes of layout aside) whose weights are as wide as in the file; the same kernel
    with narrower weights in the file is storage only; a float kernel, or extra steps around an integer one, is emulated.
    """
    if weight_bits == act_bits == FLOAT:
        return "native"
    classes = [{runtime.kernel_class(k) for k in t.kernels} - {"layout"} for t in layers]
    if not classes or any(c != {"integer"} for c in classes):
        return "emulated"
    return "native" if stored_bits(weight_bits) == 8 else "stored only"


def executes(operator: Operator, precisions: tuple[Precision, ...]) -> Execution:
    """How a device runs one operator, from its measured precisions.

    An operator whose input and output differ in kind, or whose bits were not measured, is emulated.
    """
    floats = {bits > 8 for bits in (operator.in_bits, operator.out_bits)}
    if not operator.weights:
        return "native" if operator.integer or floats == {True} else "emulated"
    if operator.kind == "linear":
        floats = {operator.in_bits > 8}
    if len(floats) > 1:
        return "emulated"
    act_bits = operator.in_bits if operator.kind == "linear" else min(operator.in_bits, operator.out_bits)
    for precision in precisions:
        if (precision.weight_bits, precision.act_bits) == (operator.weight_bits, act_bits):
            return precision.execution
    return "emulated"


def _options(space: Space, kind: str) -> list[int]:
    found = {int(o) for d in space.decisions if d.name.endswith(f".{kind}") for o in d.options}
    found |= {int(v) for name, v in space.fixed.items() if name.endswith(f".{kind}")}
    return sorted(found)


def _uniform(space: Space, weight_bits: int, act_bits: int) -> np.ndarray:
    values: dict[str, Option] = dict(space.reference())
    for decision in space.decisions:
        wanted = weight_bits if decision.name.endswith(".weight_bits") else act_bits
        if decision.name.endswith("_bits"):
            values[decision.name] = min((int(o) for o in decision.options), key=lambda o: abs(o - wanted))
    return space.encode(values)
