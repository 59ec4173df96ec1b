"""A workload as a torch module: one unit per operator, wired as the workload says."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.spaces.images import fit
from hwnas.spaces.operator import NETWORK_INPUT, Operator
from hwnas.spaces.quantizers import ActivationQuantizer, quantize_weight
from hwnas.spaces.workload import Workload


class Unit(nn.Module):
    """One operator: its arithmetic, its activation, and the quantiser of the tensor it writes."""

    def __init__(self, operator: Operator) -> None:
        super().__init__()
        self.operator = operator
        self.quantizer = ActivationQuantizer(operator.out_bits) if operator.out_bits <= 8 else None

    def compute(self, *inputs: Tensor) -> Tensor:
        """The arithmetic before the activation."""
        raise NotImplementedError

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs (batch, channels, height, width) or (batch, features) to the operator's output."""
        y = self.compute(*inputs)
        if self.operator.activation == "relu":
            y = functional.relu(y)
        elif self.operator.activation == "sigmoid":
            y = torch.sigmoid(y)
        return y if self.quantizer is None else cast(Tensor, self.quantizer(y))


class ConvUnit(Unit):
    """A convolution with its bias or batch normalisation, its weights quantised per output channel.

    The weights are quantised before normalisation, whose factor per channel then multiplies the scale: folding it at
    export changes no integer.
    """

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator)
        o = operator
        self.conv = nn.Conv2d(o.in_channels, o.out_channels, o.kernel, o.stride, o.kernel // 2, groups=o.groups,
                              bias=o.affine == "bias")  # fmt: skip
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)
        self.norm = nn.BatchNorm2d(o.out_channels) if o.affine == "norm" else None

    def compute(self, *inputs: Tensor) -> Tensor:
        """Input (n, in, h, w) to (n, out, h', w')."""
        conv = self.conv
        weight = quantize_weight(conv.weight, self.operator.weight_bits)
        y = functional.conv2d(inputs[0], weight, conv.bias, conv.stride, conv.padding, groups=conv.groups)
        return y if self.norm is None else cast(Tensor, self.norm(y))

    def folded(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Weight, factor per output channel, and bias: the convolution with its batch normalisation folded in."""
        weight, norm = self.conv.weight, self.norm
        if norm is None:
            return weight, torch.ones(len(weight)), self.conv.bias
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return weight, factor, norm.bias - norm.running_mean * factor


class LinearUnit(Unit):
    """A linear layer on features; maps of size 1×1 are flattened."""

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator)
        self.linear = nn.Linear(operator.in_channels, operator.out_channels, bias=operator.affine == "bias")
        nn.init.normal_(self.linear.weight, std=0.01)
        if self.linear.bias is not None:
            nn.init.zeros_(self.linear.bias)

    def compute(self, *inputs: Tensor) -> Tensor:
        """Input (n, in, 1, 1) to (n, out)."""
        weight = quantize_weight(self.linear.weight, self.operator.weight_bits)
        return functional.linear(inputs[0].flatten(1), weight, self.linear.bias)


class PoolUnit(Unit):
    """Global average: (n, c, h, w) to (n, c, 1, 1)."""

    def compute(self, *inputs: Tensor) -> Tensor:
        """The mean of each map."""
        return inputs[0].mean((2, 3), keepdim=True)


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


class QuantizeUnit(Unit):
    """Only the quantiser."""

    def compute(self, *inputs: Tensor) -> Tensor:
        """The input as it is."""
        return inputs[0]


UNITS: dict[str, type[Unit]] = {
    "conv": ConvUnit,
    "linear": LinearUnit,
    "pool": PoolUnit,
    "add": AddUnit,
    "scale": ScaleUnit,
    "quantize": QuantizeUnit,
}


class Network(nn.Module):
    """The network of a workload.

    Args:
        workload: Its operators; each becomes the unit ``units[name]``, dots in the name written as underscores.
        input_shape: Channels, height, width of one image.
    """

    def __init__(self, workload: Workload, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.workload = workload
        self.input_shape = input_shape
        self.units = nn.ModuleDict({module_name(o): UNITS[o.kind](o) for o in workload.operators})

    def unit(self, operator: Operator) -> Unit:
        """The module of one of the workload's operators."""
        return cast(Unit, self.units[module_name(operator)])

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, channels, height, width) to logits (n, classes); those of another size are resized."""
        values = {NETWORK_INPUT: fit(images, self.input_shape[1:])}
        for operator in self.workload.operators:
            values[operator.name] = self.unit(operator)(*(values[name] for name in operator.inputs))
        return values[self.workload.operators[-1].name]


def module_name(operator: Operator) -> str:
    """The operator's name as torch allows it in a module's path."""
    return operator.name.replace(".", "_")
