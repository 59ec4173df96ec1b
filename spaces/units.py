"""Operators as torch modules: one unit for every kind of operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.hadamard import check_hadamard, walsh_hadamard
from hwnas.spaces.operator import Operator
from hwnas.spaces.quantizers import ActivationQuantizer, quantize_weight
from hwnas.spaces.sparsify import sparsify

ACTIVATIONS: Mapping[str, Callable[[int], nn.Module | None]] = {
    "none": lambda _: None,
    "relu": lambda _: nn.ReLU(),
    "relu6": lambda _: nn.ReLU6(),
    "sigmoid": lambda _: nn.Sigmoid(),
    "hswish": lambda _: nn.Hardswish(),
    "hsigmoid": lambda _: nn.Hardsigmoid(),
    "prelu": nn.PReLU,
}
"""The modules of activations, for a number of channels. Slopes start at 0.25 (He et al., ICCV 2015, section 2.1)."""


class Unit(nn.Module):
    """One operator: its arithmetic, normalisation, activation, and the quantiser of the tensor that it writes."""

    def __init__(self, operator: Operator) -> None:
        super().__init__()
        self.operator = operator
        self.norm = nn.BatchNorm2d(operator.out_channels) if operator.affine == "norm" else None
        self.activation = ACTIVATIONS[operator.activation](operator.out_channels)
        rounds = operator.out_bits <= 8 and not operator.moves_integers
        self.quantizer = ActivationQuantizer(operator.out_bits) if rounds else None

    def compute(self, *inputs: Tensor) -> Tensor:
        """The arithmetic before normalisation and activation."""
        raise NotImplementedError

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs (batch, channels, height, width) or (batch, features) to the operator's output."""
        y = self.compute(*inputs)
        for step in (self.norm, self.activation, self.quantizer):
            y = y if step is None else cast(Tensor, step(y))
        return y


def folded_norm(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Factor and shift per channel that a batch normalisation amounts to in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return factor, norm.bias - norm.running_mean * factor


class ProductUnit(Unit):
    """A convolution or linear layer, its weights pruned, then quantised per output channel.

    The weights are quantised before normalisation, whose factor per channel then multiplies the scale: folding it at
    export changes no integer.
    """

    @property
    def layer(self) -> nn.Conv2d | nn.Linear:
        """Torch's own layer, whose weights are neither pruned nor quantised."""
        raise NotImplementedError

    def pruned(self) -> Tensor:
        """The weights (out, …), those that are not kept set to zero."""
        return sparsify(self.layer.weight, self.operator.density, self.operator.pattern)

    def folded(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Pruned weight, factor per output channel, and bias: the layer with its batch normalisation folded in."""
        weight = self.pruned()
        if self.norm is None:
            return weight, torch.ones(len(weight)), self.layer.bias
        return weight, *folded_norm(self.norm)


class ConvUnit(ProductUnit):
    """A convolution with its bias or batch normalisation."""

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator)
        o = operator
        self.conv = nn.Conv2d(o.in_channels, o.out_channels, o.kernel, o.stride, o.padding, o.dilation, o.groups,
                              bias=o.affine == "bias")  # fmt: skip
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    @property
    def layer(self) -> nn.Conv2d:
        """See `ProductUnit`."""
        return self.conv

    def compute(self, *inputs: Tensor) -> Tensor:
        """Input (n, in, h, w) to (n, out, h', w')."""
        c = self.conv
        weight = quantize_weight(self.pruned(), self.operator.weight_bits)
        return functional.conv2d(inputs[0], weight, c.bias, c.stride, c.padding, c.dilation, groups=c.groups)


class LinearUnit(ProductUnit):
    """A linear layer on features; maps of size 1×1 are flattened."""

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator)
        self.linear = nn.Linear(operator.in_channels, operator.out_channels, bias=operator.affine == "bias")
        nn.init.normal_(self.linear.weight, std=0.01)
        if self.linear.bias is not None:
            nn.init.zeros_(self.linear.bias)

    @property
    def layer(self) -> nn.Linear:
        """See `ProductUnit`."""
        return self.linear

    def compute(self, *inputs: Tensor) -> Tensor:
        """Input (n, in, 1, 1) to (n, out)."""
        weight = quantize_weight(self.pruned(), self.operator.weight_bits)
        return functional.linear(inputs[0].flatten(1), weight, self.linear.bias)


class PoolUnit(Unit):
    """Averages of windows, of which padding is no part; of whole maps, (n, c, h, w) to (n, c, 1, 1), for a kernel of 1.

    Windows of an even kernel are not padded, and a last one may reach over the edge.
    """

    def compute(self, *inputs: Tensor) -> Tensor:
        """The mean of each map or window."""
        o = self.operator
        if o.kernel == 1:
            return inputs[0].mean((2, 3), keepdim=True)
        return functional.avg_pool2d(
            inputs[0], o.kernel, o.stride, o.padding, ceil_mode=o.kernel % 2 == 0, count_include_pad=False
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
    """Every stride-th row and column, with channels of zeros after the others (ResNet's shortcuts of option A)."""

    def compute(self, *inputs: Tensor) -> Tensor:
        """Input (n, in, h, w) to (n, out, h', w')."""
        o = self.operator
        return functional.pad(_strided(inputs[0], o.stride), (0, 0, 0, 0, 0, o.out_channels - o.in_channels))


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
}
