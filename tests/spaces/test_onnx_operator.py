"""One operator alone as a model: what it reads, writes and computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from hwnas.latency_tables.runtimes.onnx_session import SessionExecutable
from hwnas.latency_tables.runtimes.onnxruntime import OnnxRuntime
from hwnas.spaces import Operator, load_space
from hwnas.spaces.onnx_graph import operator_to_onnx

SIDE = (8, 8)
CONV = {"kind": "conv", "in_channels": 16, "out_channels": 24, "in_size": SIDE, "out_size": SIDE, "kernel": 3}
FLOAT = Operator(**CONV, activation="relu", affine="norm")  # type: ignore[arg-type]
INTEGER = Operator(**CONV, weight_bits=8, in_bits=8, out_bits=8, activation="relu", affine="norm")  # type: ignore[arg-type]


def feed(model: Any) -> dict[str, np.ndarray]:
    arrays = {}
    for value in model.graph.input:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        integers = value.type.tensor_type.elem_type == TensorProto.UINT8
        arrays[value.name] = np.full(shape, 200 if integers else 0.5, np.uint8 if integers else np.float32)
    return arrays


def kernels(operator: Operator) -> list[str]:
    model = operator_to_onnx(operator)
    times = SessionExecutable(OnnxRuntime().sessions, model.SerializeToString(), feed(model)).operator_times(3)
    return [kernel for time in times.values() for kernel in time.kernels if kernel not in ("Transpose", "ReorderInput")]


def test_a_float_convolution_is_one() -> None:
    assert [k for k in kernels(FLOAT) if not k.startswith("Reorder")] == ["Conv"]


def test_an_integer_convolution_reads_and_writes_integers_and_nothing_is_converted() -> None:
    assert kernels(INTEGER) == ["QLinearConv"]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("change", [{}, {"groups": 8}, {"kind": "deconv", "in_size": (8, 8)}])
def test_weights_in_integers_are_floats_once_a_file_is_loaded_where_floats_are_read(bits: int, change: Any) -> None:
    plain = replace(FLOAT, **change)
    assert kernels(replace(plain, weight_bits=bits)) == kernels(plain)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_every_operator_of_a_space_runs_alone(shape: tuple[int, int, int]) -> None:
    space = load_space("mbconv", input_shape=shape, num_classes=10)
    rows = space.sample(np.random.default_rng(0), 12)
    operators = list(dict.fromkeys(o for row in rows for o in space.workload_of_row(row).operators))
    kinds = {o.kind for o in operators}
    assert kinds >= {"conv", "linear", "pool", "scale"}
    for o in operators:
        model = operator_to_onnx(o)
        (output,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed(model))
        vector = o.kind == "linear"
        assert output.shape == ((1, o.out_channels) if vector else (1, o.out_channels, *o.out_size))
        assert output.dtype == (np.uint8 if o.out_bits <= 8 else np.float32)
        if o.out_bits < 8:
            assert output.max() < 2**o.out_bits


def test_an_addition_adds_and_a_gate_multiplies() -> None:
    add = Operator("add", 4, 4, SIDE, SIDE)
    scale = Operator("scale", 4, 4, SIDE, SIDE)
    for operator, expected in ((add, 1.0), (scale, 0.25)):
        model = operator_to_onnx(operator)
        assert [i.name for i in model.graph.input] == ["input0", "input1"]
        (output,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed(model))
        assert output == pytest.approx(expected)
