"""A network as one deploys it in PyTorch: normalisation folded, weights rounded once, activations rounded at every run.

PyTorch has no kernels for the mixed precisions of these spaces, so rounded activations are emulated by one operation
after the layer; rounded weights are float32 numbers and cost nothing.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from hwnas.spaces.network import Network, module_name
from hwnas.spaces.operator import NETWORK_INPUT
from hwnas.spaces.products import Layer
from hwnas.spaces.quantizers import quantize_weight
from hwnas.spaces.units import UNITS, ProductUnit, Unit, folded_norm


class FrozenUnit(nn.Module):
    """One operator with constants only."""

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self.compute: nn.Module
        self.norm: nn.Module | None = None
        if isinstance(unit, ProductUnit):
            self.compute = _frozen_product(unit)
        else:
            self.compute = _arithmetic(unit)
            self.norm = None if unit.norm is None else _PerChannel(*folded_norm(unit.norm))
        self.activation = copy.deepcopy(unit.activation)
        self.levels = None
        if unit.quantizer is not None:
            scale, zero = unit.quantizer.scale_and_zero_point()
            self.levels = (float(scale), int(zero), unit.quantizer.levels)

    def forward(self, *inputs: Tensor) -> Tensor:
        """As `hwnas.spaces.units.Unit`."""
        y: Tensor = self.compute(*inputs)
        for step in (self.norm, self.activation):
            y = y if step is None else step(y)
        if self.levels is not None:
            scale, zero, high = self.levels
            y = torch.fake_quantize_per_tensor_affine(y, scale, zero, 0, high)
        return y


def _arithmetic(unit: Unit) -> Unit:
    """What an operator without weights does before normalisation and activation."""
    o = unit.operator
    plain = UNITS[o.kind](replace(o, affine="none", activation="none", out_bits=32))
    known = unit.state_dict()
    plain.load_state_dict({name: known[name] for name in plain.state_dict()})  # the constants of a call
    return plain


class _PerChannel(nn.Module):
    """Maps times a factor per channel, and a shift."""

    factor: Tensor
    shift: Tensor

    def __init__(self, factor: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor.detach().reshape(-1, 1, 1))
        self.register_buffer("shift", shift.detach().reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.factor)


class _FlatLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))


@torch.no_grad()
def _frozen_product(unit: ProductUnit) -> nn.Module:
    o = unit.operator
    weight, factor, bias = unit.folded()
    weight = quantize_weight(weight, o.weight_bits) * factor.reshape(-1, *[1] * (weight.ndim - 1))
    if o.kind == "linear" and not o.on_tokens:
        layer: Layer = _FlatLinear(o.in_channels, o.out_channels, bias=bias is not None)
    else:
        layer = unit.make_layer(o, bias=bias is not None)
    layer.weight.copy_(unit.laid_out(weight))
    if bias is not None and layer.bias is not None:
        layer.bias.copy_(bias)
    return layer


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
