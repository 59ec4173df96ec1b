"""A network as one deploys it in PyTorch: normalisation folded, weights rounded once, activations rounded at every run.

PyTorch has no kernels for the mixed precisions of these spaces, so rounded activations are emulated by one operation
after the layer; rounded weights are float32 numbers and cost nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from hwnas.spaces.network import ConvUnit, LinearUnit, Network, Unit, module_name
from hwnas.spaces.operator import NETWORK_INPUT
from hwnas.spaces.quantizers import quantize_weight


class FrozenUnit(nn.Module):
    """One operator with constants only."""

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self.activation = unit.operator.activation
        self.compute: nn.Module = _frozen_product(unit) or _Arithmetic(unit)
        self.levels = None
        if unit.quantizer is not None:
            scale, zero = unit.quantizer.scale_and_zero_point()
            self.levels = (float(scale), int(zero), unit.quantizer.levels)

    def forward(self, *inputs: Tensor) -> Tensor:
        """As `hwnas.spaces.network.Unit`."""
        y: Tensor = self.compute(*inputs)
        if self.activation == "relu":
            y = functional.relu(y)
        elif self.activation == "sigmoid":
            y = torch.sigmoid(y)
        if self.levels is not None:
            scale, zero, high = self.levels
            y = torch.fake_quantize_per_tensor_affine(y, scale, zero, 0, high)
        return y


class _Arithmetic(nn.Module):
    """An operator without weights."""

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.unit.compute(*inputs)


class _FlatLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))


@torch.no_grad()
def _frozen_product(unit: Unit) -> nn.Module | None:
    if isinstance(unit, ConvUnit):
        weight, factor, bias = unit.folded()
        weight = quantize_weight(weight, unit.operator.weight_bits) * factor.reshape(-1, 1, 1, 1)
        o = unit.operator
        conv = nn.Conv2d(o.in_channels, o.out_channels, o.kernel, o.stride, o.kernel // 2, groups=o.groups,
                         bias=bias is not None)  # fmt: skip
        conv.weight.copy_(weight)
        if bias is not None and conv.bias is not None:
            conv.bias.copy_(bias)
        return conv
    if isinstance(unit, LinearUnit):
        source = unit.linear
        linear = _FlatLinear(source.in_features, source.out_features, bias=source.bias is not None)
        linear.weight.copy_(quantize_weight(source.weight, unit.operator.weight_bits))
        if source.bias is not None:
            linear.bias.copy_(source.bias)
        return linear
    return None


def freeze(network: Network) -> fx.GraphModule:
    """A trained network with its quantisers' ranges set, as straight-line code that calls one module per operator."""
    root = nn.Module()
    graph = fx.Graph()
    values = {NETWORK_INPUT: graph.placeholder("images")}
    for operator in network.workload.operators:
        name = module_name(operator)
        root.add_module(name, FrozenUnit(network.unit(operator)))
        values[operator.name] = graph.call_module(name, tuple(values[i] for i in operator.inputs))
    graph.output(values[network.workload.operators[-1].name])
    module = fx.GraphModule(root, graph, "FrozenNetwork")
    return module.eval().requires_grad_(False)
