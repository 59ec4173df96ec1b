"""What a simulated accelerator says of an operator, and the parts that all of them share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from hwnas.spaces.operator import Operator


class Accelerator(Protocol):
    """Computes what operators cost. Networks cost the sum: there is no fusion and no start-up time."""

    @property
    def what(self) -> str:
        """The machine in words, with its size and clock."""

    @property
    def source(self) -> str:
        """Where its figures come from."""

    def latency_ms(self, operator: Operator) -> float:
        """Milliseconds of one image."""

    def energy_mj(self, operator: Operator) -> float:
        """Millijoules of one image."""


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


def traffic(operator: Operator, widest: int) -> Traffic:
    """Every value in its own bits, packed, and in at most ``widest`` bits.

    Of an addition both inputs are read; of a scaling the gates are left out.
    """
    o = operator
    values_in = o.in_channels * o.in_size[0] * o.in_size[1] * (2 if o.kind == "add" else 1)
    values_out = o.out_channels * o.out_size[0] * o.out_size[1]
    return Traffic(
        values_in * min(o.in_bits, widest),
        round(o.weights * o.density) * min(o.weight_bits, widest),
        values_out * min(o.out_bits, widest),
    )


@dataclass(frozen=True, slots=True)
class Product:
    """A convolution or linear layer as matrix products: ``groups`` of (positions × depth) by (depth × filters)."""

    groups: int
    positions: int
    depth: int
    filters: int


def product(operator: Operator) -> Product | None:
    """The operator as a `Product`, or None where it has no weights."""
    o = operator
    if not o.weights:
        return None
    return Product(
        o.groups, o.out_size[0] * o.out_size[1], o.in_channels // o.groups * o.kernel**2, o.out_channels // o.groups
    )


def up(a: float, b: float) -> int:
    """a / b, rounded up."""
    return math.ceil(a / b)
