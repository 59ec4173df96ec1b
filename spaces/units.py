"""Operators as torch modules: one unit for every kind of operator."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from hwnas.spaces.calls import CallUnit
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.hadamard import check_hadamard, walsh_hadamard
from hwnas.spaces.operator import Operator
from hwnas.spaces.products import ConvUnit, DeconvUnit, LinearUnit, ProductUnit
from hwnas.spaces.unit import ACTIVATIONS, Unit, folded_norm

__all__ = [
    "ACTIVATIONS", "UNITS", "CallUnit", "ConvUnit", "DeconvUnit", "LinearUnit", "ProductUnit", "Unit", "folded_norm",
]  # fmt: skip


class PoolUnit(Unit):
    """Averages of windows, of which padding is no part; of whole maps, (n, c, h, w) to (n, c, 1, 1), for a kernel of 1.

    A last window may reach over the edge (`Operator.reaches_over`).
    """

    def compute(self, *inputs: Tensor) -> Tensor:
        """The mean of each map or window."""
        o = self.operator
        if o.kernel_size == (1, 1):
            return inputs[0].mean((2, 3), keepdim=True)
        return functional.avg_pool2d(
            inputs[0], o.kernel_size, o.stride, o.paddings, ceil_mode=o.reaches_over, count_include_pad=False
        )


class AddUnit(Unit):
    """The sum of two tensors of one shape."""

    def compute(self, *inputs: Tensor) -> Tensor:
        """Their sum."""
        return inputs[0] + inputs[1]


class ScaleUnit(Unit):
    """A tensor (n, c, h, w) times one gate per channel (n, c, 1, 1)."""

    def compute(self, *inputs: Tensor) -> Tensor:
        """Their product."""
        return inputs[0] * inputs[1]


class ConcatUnit(Unit):
    """Tensors (n, c₁, h, w), (n, c₂, h, w), … one after the other: (n, c₁ + c₂ + …, h, w)."""

    def compute(self, *inputs: Tensor) -> Tensor:
        """All of them."""
        return torch.cat(inputs, 1)


class ShuffleUnit(Unit):
    """Interleaves the channels of groups: the first of each, then the second of each (ShuffleNet, CVPR 2018, fig. 1).

    Raises:
        InvalidSpaceError: The channels do not divide into the groups.
    """

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator)
        if operator.in_channels % operator.groups:
            raise InvalidSpaceError(
                f"the shuffle {operator.name!r} has {operator.in_channels} channels in {operator.groups} groups; "
                "the groups must have equally many: change the one or the other"
            )

    def compute(self, *inputs: Tensor) -> Tensor:
        """The same values, channels in another order."""
        (x,) = inputs
        return x.reshape(len(x), self.operator.groups, -1, *x.shape[2:]).transpose(1, 2).reshape(x.shape)


class HadamardUnit(Unit):
    """The transform of `walsh_hadamard`.

    Raises:
        InvalidSpaceError: See `check_hadamard`.
    """

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator)
        check_hadamard(operator)

    def compute(self, *inputs: Tensor) -> Tensor:
        """The channels of each group, transformed."""
        return walsh_hadamard(inputs[0], self.operator.groups)


class PadUnit(Unit):
    """Every stride-th row and column, with channels of zeros around the others (ResNet's shortcuts of option A).

    Raises:
        InvalidSpaceError: More channels before the others than there are new ones.
    """

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator)
        if not 0 <= operator.front <= operator.out_channels - operator.in_channels:
            raise InvalidSpaceError(
                f"the padding {operator.name!r} makes {operator.out_channels} channels of {operator.in_channels}, and "
                f"cannot put {operator.front} before them"
            )

    def compute(self, *inputs: Tensor) -> Tensor:
        """Input (n, in, h, w) to (n, out, h', w')."""
        o = self.operator
        behind = o.out_channels - o.in_channels - o.front
        return functional.pad(_strided(inputs[0], o.stride), (0, 0, 0, 0, o.front, behind))


class SliceUnit(Unit):
    """Consecutive channels.

    Raises:
        InvalidSpaceError: Channels that there are not.
    """

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator)
        if not 0 <= operator.front <= operator.in_channels - operator.out_channels:
            raise InvalidSpaceError(
                f"the slice {operator.name!r} cannot take {operator.out_channels} channels from channel "
                f"{operator.front} on: there are {operator.in_channels}"
            )

    def compute(self, *inputs: Tensor) -> Tensor:
        """Input (n, in, h, w) to (n, out, h, w)."""
        o = self.operator
        return inputs[0][:, o.front : o.front + o.out_channels]


class ZeroUnit(Unit):
    """Zeros in the shape of the input, at the stride; a product, as in NAS-Bench-201, so that gradients are zeros."""

    def compute(self, *inputs: Tensor) -> Tensor:
        """Input (n, c, h, w) to zeros (n, c, h', w')."""
        return _strided(inputs[0], self.operator.stride) * 0.0


class PlainUnit(Unit):
    """The input as it is: its normalisation, activation or quantiser are all that there is to do."""

    def compute(self, *inputs: Tensor) -> Tensor:
        """The input."""
        return inputs[0]


def _strided(x: Tensor, stride: int) -> Tensor:
    return x[:, :, ::stride, ::stride]


UNITS: Mapping[str, type[Unit]] = {
    "conv": ConvUnit,
    "linear": LinearUnit,
    "pool": PoolUnit,
    "add": AddUnit,
    "scale": ScaleUnit,
    "quantize": PlainUnit,
    "concat": ConcatUnit,
    "shuffle": ShuffleUnit,
    "hadamard": HadamardUnit,
    "pad": PadUnit,
    "activate": PlainUnit,
    "zero": ZeroUnit,
    "deconv": DeconvUnit,
    "slice": SliceUnit,
    "call": CallUnit,
}
