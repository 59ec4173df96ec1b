"""What a simulated accelerator says of an operator, and the parts that all of them share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hwnas.latency_tables.execution import Execution
from hwnas.spaces.operator import Operator

WIDEST = 16
"""Bits of the widest value that these machines have: float32 counts as 16-bit fixed point."""


class Accelerator(Protocol):
    """Computes what operators cost. Networks cost the sum: there is no fusion and no start-up time."""

    @property
    def what(self) -> str:
        """The machine in words, with its size and clock."""

    @property
    def source(self) -> str:
        """Where its figures come from, and which of them are assumptions."""

    def width(self, bits: int) -> int:
        """Bits that a value of ``bits`` bits takes in the machine."""

    def latency_ms(self, operator: Operator) -> float:
        """Milliseconds of one image."""

    def energy_mj(self, operator: Operator) -> float:
        """Millijoules of one image."""


def execution(accelerator: Accelerator, operator: Operator) -> Execution:
    """How the machine runs an operator.

    Stored only where it widens the weights or the input; emulated where a value is wider than any that it has.
    """
    o = operator
    read = (o.in_bits, o.weight_bits) if o.weights else (o.in_bits,)
    if max(*read, min(o.out_bits, WIDEST) if o.kind == "linear" else o.out_bits) > WIDEST:
        return "emulated"
    return "native" if all(accelerator.width(bits) == bits for bits in read) else "stored only"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bits that an operator moves to and from DRAM for one image, each tensor once."""

    inputs: int
    weights: int
    outputs: int

    @property
    def bits(self) -> int:
        """All of them."""
        return self.inputs + self.weights + self.outputs


def traffic(operator: Operator, width: Callable[[int], int]) -> Traffic:
    """Every value packed in its ``width``, weights that are zero included: none of the machines compresses them.

    Of an addition both inputs are read, of a concatenation all of them, and nothing to write zeros; of a scaling the
    gates are left out, and of a call all inputs but the first, and its constants.
    """
    o = operator
    values_in = o.in_channels * o.in_size[0] * o.in_size[1] * {"add": 2, "zero": 0}.get(o.kind, 1)
    values_out = o.out_channels * o.out_size[0] * o.out_size[1]
    return Traffic(values_in * width(o.in_bits), o.weights * width(o.weight_bits), values_out * width(o.out_bits))


@dataclass(frozen=True, slots=True)
class Product:
    """A convolution or linear layer as matrix products: ``groups`` of (positions × depth) by (depth × filters).

    Of a transposed convolution, positions are those read, and filters the values that each of them adds to.
    """

    groups: int
    positions: int
    depth: int
    filters: int


def product(operator: Operator) -> Product | None:
    """The operator as a `Product`, or None where it has no weights."""
    o = operator
    if not o.weights:
        return None
    inputs, outputs = o.in_channels // o.groups, o.out_channels // o.groups
    if o.kind == "deconv":
        return Product(o.groups, o.in_size[0] * o.in_size[1], inputs, outputs * o.taps)
    return Product(o.groups, o.out_size[0] * o.out_size[1], inputs * o.taps, outputs)


def up(a: float, b: float) -> int:
    """a / b, rounded up."""
    return math.ceil(a / b)
