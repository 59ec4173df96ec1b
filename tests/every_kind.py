"""Operators of every kind, activation and sparsity, alone and wired to one small network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import onnx
import torch
from torch import nn

from hwnas.latency_tables.runtimes.onnxruntime import OnnxRuntime
from hwnas.spaces import Operator, Workload
from hwnas.spaces.call_text import call_text
from hwnas.spaces.network import Network
from hwnas.spaces.operator import SAME, Activation, Kind
from hwnas.spaces.units import CallUnit

SIDE, HALF, DOUBLE = (8, 8), (4, 4), (16, 16)
IMAGE = (6, *SIDE)


def at(kind: Kind, cin: int, cout: int, out_size: tuple[int, int] = SIDE, **fields: Any) -> Operator:
    """An operator that reads maps of 8×8."""
    return Operator(kind, cin, cout, SIDE, out_size, name=kind, **fields)


def conv(cin: int, cout: int, kernel: int = 3, **fields: Any) -> Operator:
    return at("conv", cin, cout, kernel=kernel, **{"affine": "norm", **fields})


def deconv(cin: int, cout: int, kernel: int = 3, **fields: Any) -> Operator:
    return replace(conv(cin, cout, kernel, **{"stride": 2, **fields}), kind="deconv", name="deconv", out_size=DOUBLE)


def call(*steps: tuple[str, list[Any], dict[str, Any]], parameters: Any = (), **fields: Any) -> Operator:
    """ATen operations on maps of 6 channels."""
    reads = max(2 if {"input": 1} in args else 1 for _, args, _ in steps)
    inputs = ("input",) * reads
    text = call_text(steps, parameters, [IMAGE] * reads)
    return Operator("call", **{"in_channels": 6, "out_channels": 6, "in_size": SIDE, "out_size": SIDE, "name": "call",
                               "inputs": inputs, "call": text, **fields})  # fmt: skip


X, Y = {"input": 0}, {"input": 1}
LEAKY_AND_TIMES = (
    ("aten.leaky_relu.default", [X, 0.1], {}), ("aten.mul.Tensor", [{"step": 0}, {"parameter": 0}], {}),
)  # fmt: skip
OPERATORS: dict[str, Operator] = {
    "dilated": conv(6, 8, dilation=2, activation="relu"),
    "dilated depthwise": conv(6, 6, dilation=3, groups=6, activation="relu6"),
    "dilated strided": replace(conv(6, 8, 5, dilation=2, stride=2), out_size=HALF),
    "grouped": conv(6, 9, groups=3, affine="bias"),
    "1×3": conv(6, 8, 1, kernel_width=3, activation="relu"),
    "5×1 dilated": conv(6, 8, 5, kernel_width=1, dilation=2, affine="bias"),
    "3×5 depthwise strided": replace(conv(6, 6, 3, kernel_width=5, stride=2, groups=6), out_size=HALF),
    "valid": replace(conv(6, 8, 3, margin=0, activation="relu"), out_size=(6, 6)),
    "wide margin": replace(conv(6, 8, 3, margin=2), out_size=(10, 10)),
    "patches": replace(conv(6, 8, 4, stride=4, margin=0, affine="bias"), out_size=(2, 2)),
    "deconv": deconv(6, 8, activation="relu"),
    "deconv 2×2": deconv(6, 8, 2, affine="bias"),
    "deconv 4×2": deconv(6, 8, 4, kernel_width=2, margin=SAME),
    "deconv valid": replace(deconv(6, 5, 3, margin=0, affine="none"), out_size=(17, 17)),
    "deconv dilated": replace(deconv(6, 5, 3, dilation=2, stride=1), out_size=SIDE),
    "deconv grouped": deconv(6, 9, groups=3, affine="bias", activation="hswish"),
    "deconv in pairs": deconv(6, 4, groups=2, density=0.5),
    "deconv of each channel": deconv(6, 6, groups=6),
    "unstructured": conv(6, 8, density=0.3, activation="relu"),
    "2:4": conv(6, 8, density=0.5, pattern=4, activation="relu"),
    **{f"conv {name}": conv(6, 8, 1, activation=name, affine="bias") for name in get_args(Activation)},
    "linear": Operator("linear", 6, 5, name="linear", affine="bias", activation="prelu", density=0.5, pattern=2),
    "pool": at("pool", 6, 6, (1, 1)),
    "pool 3×3": at("pool", 6, 6, kernel=3),
    "pool 3×3 strided": at("pool", 6, 6, HALF, kernel=3, stride=2),
    "pool 1×3": at("pool", 6, 6, kernel=1, kernel_width=3),
    "pool 2×2 within": replace(at("pool", 6, 6, kernel=2, stride=2), in_size=(7, 7), out_size=(3, 3)),
    "pool 3×5 valid": at("pool", 6, 6, (6, 4), kernel=3, kernel_width=5, margin=0),
    "pool 2×2 strided": replace(at("pool", 6, 6, kernel=2, stride=2), in_size=(7, 7), out_size=HALF),
    "add": at("add", 6, 6, inputs=("input", "input")),
    "concat": at("concat", 18, 18, inputs=("input",) * 3),
    "shuffle": at("shuffle", 6, 6, groups=3),
    "hadamard": at("hadamard", 6, 6, groups=3),
    "pad": at("pad", 6, 10, HALF, stride=2),
    "pad channels": at("pad", 6, 8),
    "pad before": at("pad", 6, 12, HALF, stride=2, front=3),
    "pad nothing": at("pad", 6, 6),
    "slice": at("slice", 6, 3, front=2),
    "slice nothing": at("slice", 6, 6),
    "normalisation": at("activate", 6, 6, affine="norm"),
    "normalisation and prelu": at("activate", 6, 6, affine="norm", activation="prelu"),
    "hswish": at("activate", 6, 6, activation="hswish"),
    "zero": at("zero", 6, 6, HALF, stride=2),
    "call": call(*LEAKY_AND_TIMES, parameters=[(6, 1, 1)]),
    "call of two": call(("aten.maximum.default", [X, Y], {})),
    "call and relu": call(("aten.sub.Tensor", [X, Y], {"alpha": 0.5}), activation="relu"),
    "call that moves": call(("aten.transpose.int", [X, 2, 3], {})),
}  # fmt: skip
"""Operators that read the image, but for the scaling and the quantisation that `everything` has."""


def alone(operator: Operator, bits: int = 32) -> Workload:
    """The operator as a network; of fewer than 32 ``bits``, it reads integers of 8 bits and writes such of ``bits``.

    Those of 8 bits come from a first quantisation, and a last operator turns them to floats.
    """
    if bits == 32:
        return Workload.wire([operator])
    quantize = Operator(
        "quantize", operator.in_channels, operator.in_channels, operator.in_size, operator.in_size, out_bits=8, name="q"
    )
    if operator.kind == "concat":
        quantize = replace(quantize, in_channels=IMAGE[0], out_channels=IMAGE[0])
    out_bits = 32 if operator.kind == "linear" else bits  # as classifiers do
    low = replace(operator, weight_bits=8, in_bits=8, out_bits=out_bits, inputs=("q",) * len(operator.inputs))
    o = operator
    floats = Operator("activate", o.out_channels, o.out_channels, o.out_size, o.out_size, in_bits=bits, name="floats")
    return Workload.wire([quantize, low] if o.kind == "linear" else [quantize, low, floats])


def everything(bits: int = 32) -> Workload:
    """A network with every kind, in float32 or with ``bits`` for weights and activations."""

    def op(kind: Kind, cin: int, cout: int, name: str, size: tuple[int, int] = SIDE, **fields: Any) -> Operator:
        return Operator(kind, cin, cout, size, **{"out_size": size, "name": name, **fields})

    operators = [
        op("quantize", 6, 6, "input.quantize"),
        op("conv", 6, 16, "stem", kernel=3, dilation=2, affine="norm", activation="relu6"),
        op("conv", 16, 16, "a.first", groups=4, density=0.5, pattern=4, affine="norm", activation="prelu"),
        op("shuffle", 16, 16, "a.shuffle", groups=4),
        op("conv", 16, 16, "a.second", kernel=3, groups=16, dilation=2, affine="norm", activation="hswish"),
        op("pool", 16, 16, "a.pool", kernel=3, inputs=("^a",)),
        op("zero", 16, 16, "a.zero", inputs=("^a",)),
        op("add", 16, 16, "a.add", inputs=("a.pool", "a.zero")),
        op("identity", 16, 16, "a.name"),
        op("concat", 48, 48, "a.concat", inputs=("a.second", "a.name", "^a")),
        op("activate", 48, 48, "a.activate", affine="norm", activation="prelu"),
        op("hadamard", 48, 48, "b.hadamard", groups=3),
        op("pool", 48, 48, "b.squeeze", out_size=(1, 1)),
        op("conv", 48, 48, "b.gate", (1, 1), density=0.25, affine="bias", activation="hsigmoid"),
        op("scale", 48, 48, "b.scale", inputs=("b.hadamard", "b.gate")),
        op("pad", 48, 64, "b.pad", out_size=HALF, stride=2),
        op("conv", 64, 32, "head", HALF, affine="norm", activation="relu"),
        op("slice", 32, 12, "c.slice", HALF, front=20),
        op("call", 12, 12, "c.call", HALF, call=call_text(LEAKY_AND_TIMES, [(12, 1, 1)])),
        op("deconv", 12, 32, "c.deconv", HALF, out_size=SIDE, kernel=3, stride=2, groups=2, affine="norm",
           activation="silu"),
        op("pool", 32, 32, "pool", SIDE, out_size=(1, 1)),
        op("linear", 32, 5, "classifier", (1, 1), affine="bias"),
    ]  # fmt: skip
    if bits == 32:
        return Workload.wire(operators[1:])
    low = [replace(o, weight_bits=bits, in_bits=bits, out_bits=bits) for o in operators[1:-1]]
    first, last = replace(operators[0], out_bits=bits), replace(operators[-1], weight_bits=8, in_bits=bits)
    return Workload.wire([first, *low, last])


def lived_in(network: Network, seed: int = 0) -> Network:
    """Parameters and batch statistics as after some training, ranges that fit; in evaluation mode."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=g)
            elif isinstance(module, nn.PReLU):
                module.weight.uniform_(-0.2, 0.4, generator=g)
            elif isinstance(module, nn.Linear):
                module.weight.normal_(std=0.3, generator=g)
            elif isinstance(module, CallUnit):
                for constant in module.constants:
                    if constant.is_floating_point():
                        constant.normal_(generator=g)
            bias = getattr(module, "bias", None)
            if isinstance(bias, nn.Parameter):
                bias.normal_(std=0.3, generator=g)
        for _ in range(3):
            network.train()(images(network, 16, seed))
    return network.eval()


def images(network: Network, n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, *network.input_shape, generator=torch.Generator().manual_seed(seed))


def built(workload: Workload, seed: int = 0) -> Network:
    """The workload's network, `lived_in`."""
    torch.manual_seed(seed)
    first = workload.operators[0]
    channels = IMAGE[0] if first.kind == "concat" else first.in_channels
    return lived_in(Network(workload, (channels, *first.in_size)), seed)


def outputs(network: Network, model: onnx.ModelProto, n: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Of the module and of the file, which is checked."""
    onnx.checker.check_model(model, full_check=True)
    x = images(network, n, 9)
    with torch.no_grad():
        expected = network(x).numpy()
    (actual,) = OnnxRuntime().session(model).run(None, {"input": x.numpy()})
    assert actual.shape == expected.shape
    return expected, actual
