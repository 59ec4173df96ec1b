"""Operators of every kind, activation and sparsity, alone and wired to one small network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import torch
from torch import nn

from hwnas.spaces import Operator, Workload
from hwnas.spaces.network import Network
from hwnas.spaces.operator import Activation, Kind

SIDE, HALF = (8, 8), (4, 4)
IMAGE = (6, *SIDE)


def at(kind: Kind, cin: int, cout: int, out_size: tuple[int, int] = SIDE, **fields: Any) -> Operator:
    """An operator that reads maps of 8×8."""
    return Operator(kind, cin, cout, SIDE, out_size, name=kind, **fields)


def conv(cin: int, cout: int, kernel: int = 3, **fields: Any) -> Operator:
    return at("conv", cin, cout, kernel=kernel, **{"affine": "norm", **fields})


OPERATORS: dict[str, Operator] = {
    "dilated": conv(6, 8, dilation=2, activation="relu"),
    "dilated depthwise": conv(6, 6, dilation=3, groups=6, activation="relu6"),
    "dilated strided": replace(conv(6, 8, 5, dilation=2, stride=2), out_size=HALF),
    "grouped": conv(6, 9, groups=3, affine="bias"),
    "unstructured": conv(6, 8, density=0.3, activation="relu"),
    "2:4": conv(6, 8, density=0.5, pattern=4, activation="relu"),
    **{f"conv {name}": conv(6, 8, 1, activation=name, affine="bias") for name in get_args(Activation)},
    "linear": Operator("linear", 6, 5, name="linear", affine="bias", activation="prelu", density=0.5, pattern=2),
    "pool": at("pool", 6, 6, (1, 1)),
    "pool 3×3": at("pool", 6, 6, kernel=3),
    "pool 3×3 strided": at("pool", 6, 6, HALF, kernel=3, stride=2),
    "pool 2×2 strided": replace(at("pool", 6, 6, kernel=2, stride=2), in_size=(7, 7), out_size=HALF),
    "add": at("add", 6, 6, inputs=("input", "input")),
    "concat": at("concat", 18, 18, inputs=("input",) * 3),
    "shuffle": at("shuffle", 6, 6, groups=3),
    "hadamard": at("hadamard", 6, 6, groups=3),
    "pad": at("pad", 6, 10, HALF, stride=2),
    "pad channels": at("pad", 6, 8),
    "pad nothing": at("pad", 6, 6),
    "normalisation": at("activate", 6, 6, affine="norm"),
    "normalisation and prelu": at("activate", 6, 6, affine="norm", activation="prelu"),
    "hswish": at("activate", 6, 6, activation="hswish"),
    "zero": at("zero", 6, 6, HALF, stride=2),
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
        op("pool", 32, 32, "pool", HALF, out_size=(1, 1)),
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
