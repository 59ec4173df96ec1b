"""The ONNX nodes of each kind of operator, from the float tensors that it reads to the one before its quantiser.

A Hadamard transform is written as products with constant matrices: that of 2^k channels is the Kronecker product of
those of 2^a and 2^(k−a) channels, so that it splits into one MatMul for each factor of at most `RADIX` channels. Of the
forms that were timed with ONNX Runtime 1.32 on one thread of an x86 processor, at 14×14 positions, these took 17 µs for
64 channels and 75 µs for 256; butterflies of Split, Add, Sub and Concat 42 and 202 µs, and a 1×1 convolution with the
whole matrix 23 and 264 µs.

All of them are nodes of operator set 18, too, with the same inputs: kits are written for it. Where a newer set has a
node of its own, that is written where the set is new enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper
from torch import nn

from hwnas.spaces.calls import CallUnit
from hwnas.spaces.hadamard import walsh_hadamard
from hwnas.spaces.onnx_calls import write_call
from hwnas.spaces.onnx_writer import Writer
from hwnas.spaces.operator import Operator
from hwnas.spaces.units import ProductUnit, Unit

RADIX = 16
"""Channels of the largest matrix that a Hadamard transform is split into."""
GELU_OPSET = 20
"""The first operator set with a node for GELU."""
_EVERYTHING = np.iinfo(np.int64).max

Nodes = Callable[[Writer, Operator, list[str]], str]


def write_operator(writer: Writer, operator: Operator, unit: Unit) -> None:
    """Adds the nodes of one operator: arithmetic, normalisation, activation and quantisation."""
    name, source = operator.name, writer.values[operator.inputs[0]]
    if operator.kind == "zero" or operator.moves_integers:
        inputs = [source.tensor]  # of zeros the shape alone is read
    else:
        inputs = [writer.read(operator, position) for position in range(len(operator.inputs))]
    writer.shapes[name] = _shape(operator, writer.shapes[operator.inputs[0]])
    if isinstance(unit, CallUnit):
        y = write_call(writer, operator, unit, inputs)
    elif isinstance(unit, ProductUnit):
        y = _product(writer, operator, [*inputs, *writer.parameters(operator, *unit.folded())])
    else:
        y = _NODES[operator.kind](writer, operator, inputs)
        if unit.norm is not None:
            y = _norm(writer, name, y, unit.norm)
    y = _activation(writer, operator, unit, y)
    if y == source.tensor and unit.quantizer is None:
        y = writer.node(name, "Identity", [y])
    if operator.moves_integers:
        writer.values[name] = replace(source, tensor=y)
    else:
        writer.write(name, y, unit.quantizer)
    if operator.on_tokens:
        written = writer.values[name]
        tokens = writer.integers(name, "tokens", (-1, *writer.shapes[name]))
        writer.values[name] = replace(written, tensor=writer.node(name, "Reshape", [written.tensor, tokens]))


def _shape(o: Operator, read: tuple[int, ...]) -> tuple[int, ...]:
    """Of what an operator writes for one image, from that of what it reads; that of a call is for its nodes to say."""
    if o.kind == "linear":
        return (*read[:-1], o.out_channels) if o.on_tokens else (o.out_channels,)
    return (o.out_channels, *o.out_size) if len(read) == 3 else read


def _product(writer: Writer, o: Operator, inputs: list[str]) -> str:
    """One node; of tokens, all rows of a batch are one matrix.

    ONNX Runtime has an integer kernel for a Gemm with a bias, and for a MatMul without one: followed by an Add, it
    computes floats from integers, and rounds them in a node of its own.
    """
    if o.kind == "linear":
        return writer.node(o.name, "Gemm", inputs, transB=1)
    window: dict[str, Any] = {
        "kernel_shape": list(o.kernel_size),
        "strides": [o.stride] * 2,
        "pads": list(o.paddings) * 2,
    }
    window |= {"dilations": [o.dilation] * 2}
    if o.kind == "deconv":
        extra = list(o.output_paddings)
        return writer.node(o.name, "ConvTranspose", inputs, **window, group=o.groups, output_padding=extra)
    return writer.node(o.name, "Conv", inputs, **window, group=o.groups)


def _norm(writer: Writer, name: str, tensor: str, norm: nn.BatchNorm2d) -> str:
    """One node, where a product that it could be folded into is missing: faster than a factor and a shift."""
    tensors = {"scale": norm.weight, "shift": norm.bias, "mean": norm.running_mean, "variance": norm.running_var}
    constants = [
        writer.constant(name, step, values.numpy(force=True)) for step, values in tensors.items() if values is not None
    ]
    return writer.node(name, "BatchNormalization", [tensor, *constants], epsilon=norm.eps)


def _activation(writer: Writer, operator: Operator, unit: Unit, tensor: str) -> str:
    """Nodes that compute the activation.

    A quantiser's range ends at 6 or below where ReLU6 is before it, so that a Relu writes the same integers, and fuses
    to integer kernels of all bits. HardSwish is written as what ONNX Runtime makes of it, there in nodes without names.
    """
    name = operator.name
    match operator.activation:
        case "none":
            return tensor
        case "relu6" if unit.quantizer is None:
            bounds = [writer.constant(name, f"act_{n}", np.array(n, dtype=np.float32)) for n in (0, 6)]
            return writer.node(name, "Clip", [tensor, *bounds], step="relu6")
        case "hswish":
            gate = writer.node(name, "HardSigmoid", [tensor], alpha=1 / 6, beta=0.5)
            return writer.node(name, "Mul", [tensor, gate], step="hardswish")
        case "hsigmoid":
            return writer.node(name, "HardSigmoid", [tensor], alpha=1 / 6, beta=0.5)
        case "silu":
            gate = writer.node(name, "Sigmoid", [tensor])
            return writer.node(name, "Mul", [tensor, gate], step="silu")
        case "gelu":
            return _gelu(writer, name, tensor)
        case "prelu":
            assert isinstance(unit.activation, nn.PReLU)
            slope = unit.activation.weight.numpy(force=True)
            after = [1] * (len(writer.shapes[name]) - 1)
            return writer.node(name, "PRelu", [tensor, writer.constant(name, "slope", slope.reshape(-1, *after))])
        case activation:
            kind = {"relu": "Relu", "relu6": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}[activation]
            return writer.node(name, kind, [tensor])


def _gelu(writer: Writer, name: str, tensor: str) -> str:
    """x/2 · (1 + erf(x/√2)), in the order of operations that ONNX Runtime makes one node of."""
    if writer.opset >= GELU_OPSET:
        return writer.node(name, "Gelu", [tensor])
    root, one, half = (
        writer.constant(name, f"act_{step}", np.array(value, dtype=np.float32))
        for step, value in (("root", 2**0.5), ("one", 1.0), ("half", 0.5))
    )
    y = writer.node(name, "Div", [tensor, root], step="gelu_divide")
    y = writer.node(name, "Erf", [y], step="gelu_erf")
    y = writer.node(name, "Add", [y, one], step="gelu_add")
    y = writer.node(name, "Mul", [tensor, y], step="gelu_times")
    return writer.node(name, "Mul", [y, half], step="gelu")


def _pool(writer: Writer, o: Operator, inputs: list[str]) -> str:
    if o.kernel_size == (1, 1):
        return writer.node(o.name, "GlobalAveragePool", inputs)
    return writer.node(o.name, "AveragePool", inputs, kernel_shape=list(o.kernel_size), strides=[o.stride] * 2,
                       pads=list(o.paddings) * 2, ceil_mode=int(o.reaches_over), count_include_pad=0)  # fmt: skip


def _shuffle(writer: Writer, o: Operator, inputs: list[str]) -> str:
    apart = writer.integers(o.name, "apart", (0, o.groups, o.in_channels // o.groups, -1))
    y = writer.node(o.name, "Reshape", [*inputs, apart], step="split")
    y = writer.node(o.name, "Transpose", [y], perm=[0, 2, 1, 3])
    return _to_maps(writer, o, y)


def _hadamard(writer: Writer, o: Operator, inputs: list[str]) -> str:
    (y,) = inputs
    left, after = o.in_channels // o.groups, o.in_size[0] * o.in_size[1]
    while left > 1:
        size = min(RADIX, left)
        matrix = walsh_hadamard(torch.eye(size)).numpy()
        shape = writer.integers(o.name, f"shape{left}", (0, -1, size, after))
        y = writer.node(o.name, "Reshape", [y, shape], step=f"split{left}")
        y = writer.node(o.name, "MatMul", [writer.constant(o.name, f"act_hadamard{left}", matrix), y],
                        step=f"matmul{left}")  # fmt: skip
        left, after = left // size, after * size
    return _to_maps(writer, o, y)


def _pad(writer: Writer, o: Operator, inputs: list[str]) -> str:
    (y,) = inputs
    if o.stride > 1:
        bounds = {"starts": (0, 0), "ends": (_EVERYTHING,) * 2, "axes": (2, 3), "steps": (o.stride,) * 2}
        y = writer.node(o.name, "Slice", [y, *(writer.integers(o.name, *item) for item in bounds.items())])
    if o.out_channels > o.in_channels:
        behind = o.out_channels - o.in_channels - o.front
        pads = writer.integers(o.name, "pads", (0, o.front, 0, 0, 0, behind, 0, 0))
        zero = [writer.values[o.inputs[0]].zero] if o.moves_integers else []
        y = writer.node(o.name, "Pad", [y, pads, *zero])
    return y


def _slice(writer: Writer, o: Operator, inputs: list[str]) -> str:
    bounds = {"starts": o.front, "ends": o.front + o.out_channels, "axes": 1}
    constants = [writer.integers(o.name, step, (value,)) for step, value in bounds.items()]
    return writer.node(o.name, "Slice", [*inputs, *constants])


def _zero(writer: Writer, o: Operator, inputs: list[str]) -> str:
    batch = writer.node(o.name, "Shape", inputs, start=0, end=1)
    rest = writer.integers(o.name, "rest", (o.out_channels, *o.out_size))
    shape = writer.node(o.name, "Concat", [batch, rest], axis=0)
    zero = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0])
    return writer.node(o.name, "ConstantOfShape", [shape], value=zero)


def _to_maps(writer: Writer, o: Operator, tensor: str) -> str:
    shape = writer.integers(o.name, "maps", (0, o.out_channels, *o.out_size))
    return writer.node(o.name, "Reshape", [tensor, shape])


def _one(kind: str, writer: Writer, o: Operator, inputs: list[str], **attributes: Any) -> str:
    return writer.node(o.name, kind, inputs, **attributes)


def _nothing(_writer: Writer, _operator: Operator, inputs: list[str]) -> str:
    return inputs[0]


_NODES: Mapping[str, Nodes] = {
    "pool": _pool,
    "add": partial(_one, "Add"),
    "scale": partial(_one, "Mul"),
    "quantize": _nothing,
    "concat": partial(_one, "Concat", axis=1),
    "shuffle": _shuffle,
    "hadamard": _hadamard,
    "pad": _pad,
    "activate": _nothing,
    "zero": _zero,
    "slice": _slice,
}
