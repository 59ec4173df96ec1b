"""Native, emulated or stored only: from the kernels that ran."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwnas.latency_tables.device import Precision
from hwnas.latency_tables.execution import Execution
from hwnas.latency_tables.plan import precision_pairs, uniform_precision
from hwnas.latency_tables.precisions import classify, executes, find_precisions
from hwnas.latency_tables.runtimes import OperatorTime, make_runtime
from hwnas.latency_tables.timing import Timing
from hwnas.spaces import Operator, load_space

RUNTIME = make_runtime("onnxruntime")


def ran(*kernels: str) -> OperatorTime:
    return OperatorTime(0.1, len(kernels), kernels)


@pytest.mark.parametrize(
    ("weight_bits", "act_bits", "layers", "execution"),
    [
        (32, 32, [ran("Conv")], "native"),
        (32, 32, [], "native"),
        (8, 8, [ran("QLinearConv"), ran("QLinearConv", "Transpose")], "native"),
        (7, 8, [ran("QLinearConv")], "native"),
        (4, 8, [ran("QLinearConv")], "stored only"),
        (8, 8, [ran("QLinearConv"), ran("DequantizeLinear", "Conv", "QuantizeLinear")], "emulated"),
        (8, 8, [ran("QLinearConv", "Clip")], "emulated"),
        (8, 32, [ran("DequantizeLinear", "Conv")], "emulated"),
        (8, 8, [ran("Transpose")], "emulated"),
        (8, 8, [], "emulated"),
        (4, 4, [ran("ConvInteger"), ran("QGemm")], "stored only"),
    ],
)
def test_classify(weight_bits: int, act_bits: int, layers: list[OperatorTime], execution: Execution) -> None:
    assert classify(weight_bits, act_bits, layers, RUNTIME) == execution


def measured(weight_bits: int, act_bits: int, execution: Execution) -> Precision:
    return Precision(
        weight_bits=weight_bits, act_bits=act_bits, execution=execution, relative_latency=1.0, kernels=("Conv",)
    )


MEASURED = (
    measured(32, 32, "native"), measured(8, 8, "native"), measured(4, 8, "stored only"), measured(8, 4, "emulated"),
)  # fmt: skip
CONV = Operator("conv", 8, 8, (4, 4), (4, 4))
INTEGER = replace(CONV, weight_bits=8, in_bits=8, out_bits=8)
LINEAR = Operator("linear", 8, 10, weight_bits=8, in_bits=8)
DECONV = Operator("deconv", 8, 8, (4, 4), (8, 8), 2, 2)
ADD = Operator("add", 8, 8, (4, 4), (4, 4))


@pytest.mark.parametrize(
    ("operator", "execution"),
    [
        (CONV, "native"),
        (INTEGER, "native"),
        (replace(INTEGER, weight_bits=4), "stored only"),
        (replace(INTEGER, weight_bits=7), "emulated"),  # not measured
        (replace(INTEGER, out_bits=32), "emulated"),  # integers in, floats out
        (replace(INTEGER, in_bits=32), "emulated"),
        (replace(INTEGER, weight_bits=32), "emulated"),
        (replace(INTEGER, out_bits=4), "emulated"),  # the narrower side counts
        (replace(INTEGER, in_bits=4), "emulated"),
        (replace(INTEGER, activation="relu6"), "native"),
        (replace(INTEGER, activation="hswish"), "emulated"),  # no integer kernel has it
        (replace(CONV, activation="hswish"), "native"),
        (Operator("hadamard", 8, 8, (4, 4), (4, 4), in_bits=8, out_bits=8), "emulated"),
        (Operator("hadamard", 8, 8, (4, 4), (4, 4)), "native"),
        (Operator("concat", 8, 8, (4, 4), (4, 4), in_bits=8, out_bits=8), "native"),
        (LINEAR, "native"),  # though it writes floats
        (replace(LINEAR, weight_bits=4), "stored only"),
        (replace(LINEAR, in_bits=32), "emulated"),
        (replace(LINEAR, weight_bits=32, in_bits=32), "native"),
        (replace(DECONV, weight_bits=8, in_bits=8, out_bits=8), "emulated"),
        (DECONV, "native"),
        (ADD, "native"),
        (replace(ADD, in_bits=8, out_bits=8), "native"),
        (replace(ADD, in_bits=8, out_bits=32), "emulated"),
        (replace(ADD, in_bits=32, out_bits=8), "emulated"),
    ],
)
def test_executes(operator: Operator, execution: Execution) -> None:
    assert executes(operator, MEASURED) == execution


def test_nothing_is_said_of_precisions_that_nobody_measured() -> None:
    assert executes(Operator("conv", 8, 8, 4, 4, 3), ()) == "native"
    assert executes(Operator("conv", 8, 8, 4, 4, 3, weight_bits=8), ()) == "not measured"
    assert executes(Operator("add", 8, 8, 4, 4, in_bits=8, out_bits=8), ()) == "not measured"


def test_precisions_are_found_for_every_pair() -> None:
    space = load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=("bits",))
    pairs = precision_pairs(space)
    rows = np.array([uniform_precision(space, *pair) for pair in pairs])
    timings = [Timing(w + a / 100, w + a / 100, 0.0, 10) for w, a in pairs]

    def times(row: np.ndarray) -> dict[str, OperatorTime]:
        """A device with integer kernels for 8-bit activations only; depthwise layers fused away in some networks."""
        return {
            o.name: ran("QLinearConv") if o.integer and o.out_bits == 8 else ran("DequantizeLinear", "Conv", "Clip")
            for o in space.workload_of_row(row).operators
            if not (o.depthwise and o.weight_bits == 7)
        }

    found = {(p.weight_bits, p.act_bits): p for p in
             find_precisions(space, RUNTIME, rows, timings, [times(row) for row in rows])}  # fmt: skip
    assert list(found) == pairs
    assert {pair for pair, p in found.items() if p.execution == "native"} == {(32, 32), (8, 8), (7, 8)}
    assert {pair for pair, p in found.items() if p.execution == "stored only"} == {(4, 8)}
    assert found[32, 32].relative_latency == 1.0
    assert found[8, 8].relative_latency == pytest.approx(8.08 / 32.32)
    assert found[8, 8].kernels == ("QLinearConv",)
    assert found[8, 4].kernels == ("Clip", "Conv", "DequantizeLinear")
