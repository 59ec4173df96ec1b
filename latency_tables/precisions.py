"""Which bit widths a device runs natively, and which it only stores or emulates: found by measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from hwnas.latency_tables.device import Device, Precision
from hwnas.latency_tables.execution import Execution
from hwnas.latency_tables.plan import precision_pairs
from hwnas.latency_tables.runtimes import OperatorTime, Runtime
from hwnas.latency_tables.simulated import execution
from hwnas.latency_tables.timing import Timing
from hwnas.spaces.operator import CLIPPING, INTEGER_KINDS, Operator, stored_bits
from hwnas.spaces.space import Rows, Space

FLOAT = 32


def find_precisions(
    space: Space, runtime: Runtime, rows: Rows, timings: Sequence[Timing], times: Sequence[Mapping[str, OperatorTime]]
) -> tuple[Precision, ...]:
    """What the device does with every pair of bits of the space.

    Convolutions of an activation that no integer kernel has (see `CLIPPING`) tell nothing of low bits.

    Args:
        space: The space.
        runtime: Knows its kernels.
        rows: The reference network in every one of `precision_pairs`, shape (pairs, decisions).
        timings, times: What was measured of each, whole and by operator.
    """
    pairs = precision_pairs(space)
    base = timings[pairs.index((FLOAT, FLOAT)) if (FLOAT, FLOAT) in pairs else -1].p50_ms
    result = []
    for (weight_bits, act_bits), row, timing, own in zip(pairs, rows, timings, times, strict=True):
        wanted = (weight_bits, act_bits, act_bits)
        layers = [
            own[o.name]
            for o in space.workload_of_row(row).operators
            if o.kind == "conv"
            and (o.weight_bits, o.in_bits, o.out_bits) == wanted
            and o.name in own
            and (act_bits == FLOAT or o.activation in CLIPPING)
        ]
        result.append(
            Precision(
                weight_bits=weight_bits,
                act_bits=act_bits,
                execution=classify(weight_bits, act_bits, layers, runtime),
                relative_latency=round(timing.p50_ms / base, 4),
                kernels=tuple(sorted({k for t in layers for k in t.kernels})),
            )
        )
    return tuple(result)


def classify(weight_bits: int, act_bits: int, layers: list[OperatorTime], runtime: Runtime) -> Execution:
    """How layers of a precision ran.

    Native is an integer kernel alone (changes of layout aside) whose weights are as wide as in the file. The same
    kernel with narrower weights in the file is storage only, and so is a float kernel alone whose weights were widened
    once. Extra steps at every inference are emulation.
    """
    if weight_bits == act_bits == FLOAT:
        return "native"
    classes = [{runtime.kernel_class(k) for k in t.kernels} - {"layout"} for t in layers]
    if classes and all(c == {"integer"} for c in classes):
        return "native" if stored_bits(weight_bits) == 8 else "stored only"
    if classes and act_bits == FLOAT and all(c == {"float"} for c in classes):
        return "stored only"
    return "emulated"


def executes_on(device: Device, operator: Operator) -> Execution | Literal["not measured"]:
    """How a device runs one operator, simulated or as measured."""
    accelerator = device.accelerator
    return execution(accelerator, operator) if accelerator else executes(operator, device.profile.precisions)


def executes(operator: Operator, precisions: tuple[Precision, ...]) -> Execution | Literal["not measured"]:
    """How a device runs one operator, from its measured precisions.

    An operator whose input and output differ in kind, or whose bits were not measured, is emulated, and so is one of
    low bits that no integer kernel serves. Nothing is said of quantised operators where no precision was measured at
    all. Weights that are shared are floats when it runs, and stored otherwise only.
    """
    if operator.shared:
        found = executes(replace(operator, shared=0), precisions)
        return "stored only" if found == "native" else found
    if (
        not precisions
        and min(operator.weight_bits if operator.weights else 32, operator.in_bits, operator.out_bits) < 32
    ):
        return "not measured"
    if not precisions:
        return "native"
    floats = {bits > 8 for bits in (operator.in_bits, operator.out_bits)}
    if not operator.weights:
        return "native" if operator.integer or floats == {True} else "emulated"
    if operator.kind == "linear":
        floats = {operator.in_bits > 8}
    if len(floats) > 1:
        return "emulated"
    if operator.in_bits <= 8 and (operator.activation not in CLIPPING or operator.kind not in INTEGER_KINDS):
        return "emulated"
    act_bits = operator.in_bits if operator.kind == "linear" else min(operator.in_bits, operator.out_bits)
    for precision in precisions:
        if (precision.weight_bits, precision.act_bits) == (operator.weight_bits, act_bits):
            return precision.execution
    return "emulated"
