"""Operators as sums of physical terms: a fixed cost per call, and costs per MAC, per value moved, per weight.

A runtime serves operators by kernels, and each kernel has its own coefficients. Here a kernel is a role (depthwise,
pointwise, …), integer or float arithmetic, and the stored form of the weights. A float operator between integer
neighbours also pays for turning its input from integers and its output to integers. Which terms earn their place was
decided by cross-validation on two image sizes: `hwnas bench latency` compares them with the alternatives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from hwnas.spaces.call_text import parse_call
from hwnas.spaces.operator import Activation, Operator

Term = tuple[str, ...]
Family = tuple[str, str, str]
FUSED: frozenset[Activation] = frozenset({"none", "relu", "relu6", "sigmoid", "hsigmoid"})
"""Activations that runtimes compute with the layer before. Others are steps of their own."""
CHANNEL_BLOCK = 8
"""Float kernels work on blocks of channels; other channel numbers take another kernel or a change of layout."""


def role(operator: Operator) -> str:
    """What the operator is to a runtime, whatever its precision."""
    if operator.kind != "conv":
        return "window pool" if operator.kind == "pool" and operator.taps > 1 else operator.kind
    if operator.in_size == (1, 1):
        return "vector"
    if operator.depthwise:
        return "depthwise"
    if operator.groups > 1:
        return "grouped"
    return "pointwise" if operator.taps == 1 else "conv"


def family(operator: Operator) -> Family:
    """Role, arithmetic, and form of the weights when it runs: what decides the kernel.

    Calls of different operations are different families: ``("call layer_norm", "float", "no weights")``.
    """
    arithmetic = "integer" if operator.integer else "float"
    if not operator.weights:
        if arithmetic == "float":
            arithmetic += "<" * (operator.in_bits <= 8) + ">" * (operator.out_bits <= 8)
        names = f" {', '.join(parse_call(operator.call).names)}" if operator.kind == "call" else ""
        return role(operator) + names, arithmetic, "no weights"
    if operator.weight_bits > 8 or operator.in_bits > 8:  # where floats are read, weights are floats when it runs
        return role(operator), arithmetic, "float weights"
    wide = operator.integer and operator.weight_bits == 8 and not operator.depthwise
    return role(operator), arithmetic, "8-bit weights" if wide else "integer weights"


def latency_terms(operator: Operator) -> Iterator[tuple[Term, float]]:
    """The operator's terms and their amounts, all non-negative, in units that bring a term near a microsecond.

    The first is its family's cost per call.
    """
    o = operator
    own = family(o)
    moved_in = o.in_channels * o.in_size[0] * o.in_size[1] / 1e3
    moved_out = o.out_channels * o.out_size[0] * o.out_size[1] / 1e3
    yield (*own, "call"), 1.0
    yield (*own, "in"), moved_in
    yield (*own, "out"), moved_out
    if o.out_bits < 8:
        yield ("clip", "call"), 1.0
        yield ("clip", "out"), moved_out
    if o.weights:
        yield (*own, "macs"), o.macs / 1e4
        yield (*own, "weights"), o.weights / 1e3
        if not o.integer:
            yield from _conversions(own[0], o, moved_in, moved_out)
    if o.kind in ("conv", "deconv"):
        yield from _convolution(own, o)
    elif o.kind == "pool" and o.taps > 1:
        yield (*own, "taps"), moved_out * o.taps
    elif o.kind == "hadamard":
        yield (*own, "butterflies"), moved_out * math.log2(o.in_channels // o.groups)
    if o.activation not in FUSED:
        yield ("activation", "call", o.activation), 1.0
        yield ("activation", "out", o.activation), moved_out


def _conversions(name: str, o: Operator, moved_in: float, moved_out: float) -> Iterator[tuple[Term, float]]:
    from_integers, to_integers = o.in_bits <= 8, o.out_bits <= 8
    yield (name, "between", str(from_integers), str(to_integers)), 1.0
    if from_integers:
        yield ("dequantise", "call", name), 1.0
        yield ("dequantise", "in"), moved_in
    if to_integers:
        yield ("quantise", "call", name), 1.0
        yield ("quantise", "out"), moved_out


def _convolution(own: Family, o: Operator) -> Iterator[tuple[Term, float]]:
    macs = o.macs / 1e4
    yield (*own, "positions"), o.out_size[0] * o.out_size[1] / 1e2
    yield (*own, "in channels"), o.in_channels / 1e2
    yield (*own, "out channels"), o.out_channels / 1e2
    if max(o.kernel_size) > 3:
        yield (*own, "large kernel"), macs
    if o.stride > 1:
        yield (*own, "strided call"), 1.0
        yield (*own, "strided macs"), macs
    if o.dilation > 1:
        yield (*own, "dilated call"), 1.0
        yield (*own, "dilated macs"), macs
    if not o.integer:
        for side, channels in (("in", o.in_channels), ("out", o.out_channels)):
            if channels % CHANNEL_BLOCK:
                yield (*own, f"odd {side} call"), 1.0
                yield (*own, f"odd {side} macs"), macs


ROLES = (
    "conv", "pointwise", "depthwise", "vector", "linear", "pool", "add", "scale", "quantize", "grouped", "window pool",
    "concat", "shuffle", "hadamard", "pad", "activate", "zero", "deconv", "slice", "call",
)  # fmt: skip
"""Numbers of roles are what forests learn from: new ones come last."""
STORED = ("no weights", "float weights", "8-bit weights", "integer weights")


def measures(operator: Operator) -> list[float]:
    """The operator as numbers for a regression tree: what its kernel is, its shape, and what it computes and moves."""
    o = operator
    _, arithmetic, stored = family(o)
    return [
        ROLES.index(role(o)), arithmetic.startswith("float"), STORED.index(stored),
        o.in_bits <= 8, o.out_bits <= 8, o.out_bits < 8,
        o.in_channels, o.out_channels, o.in_channels % CHANNEL_BLOCK == 0, o.out_channels % CHANNEL_BLOCK == 0,
        o.in_channels % (2 * CHANNEL_BLOCK) == 0, o.out_channels % (2 * CHANNEL_BLOCK) == 0,
        o.in_size[0], o.out_size[0], max(o.kernel_size), o.stride, o.activation == "none", o.macs, o.weights,
        o.in_channels * o.in_size[0] * o.in_size[1], o.out_channels * o.out_size[0] * o.out_size[1],
        o.dilation, o.activation in FUSED,
    ]  # fmt: skip


def energy_terms(operator: Operator) -> Iterator[tuple[Term, float]]:
    """Terms for energy: few, because a power meter needs a second for a network.

    MACs are ECC's products of the widths of neighbouring layers (Yang et al., CVPR 2019, equation 5) by role and
    arithmetic; ECC has one coefficient per layer of one network, and here a role shares it over all positions. Calls
    and bytes moved are added: they are what small operators spend energy on.
    """
    o = operator
    own = family(o)[0], "integer" if o.integer else "float"
    yield (*own, "call"), 1.0
    if o.weights:
        yield (*own, "macs"), o.macs / 1e5
    yield ("moved", own[1]), (o.in_bytes + o.out_bytes + replace(o, shared=0).weight_bytes) / 1e4
