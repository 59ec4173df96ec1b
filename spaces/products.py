"""Convolutions, transposed convolutions and linear layers as torch modules: operators with weights."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.spaces.compression.weight_sharing import WeightSharer
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.operator import Operator
from hwnas.spaces.quantizers import quantize_weight
from hwnas.spaces.sparsify import sparsify
from hwnas.spaces.unit import Unit, folded_norm

Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


class ProductUnit(Unit):
    """A layer with weights: pruned, then quantised per output channel, or sharing a few values.

    The weights are quantised before normalisation, whose factor per channel then multiplies the scale: folding it at
    export changes no integer.

    Attributes:
        sharer: Of weights that share values; else none.
    """

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator)
        o = operator
        kernel = () if o.kind == "linear" else o.kernel_size
        shape = (o.out_channels, o.in_channels // o.groups, *kernel)
        self.sharer = WeightSharer(o.shared, shape) if o.shared else None

    def set_rounding(self, rounds: bool) -> None:
        """See `hwnas.spaces.unit.set_rounding`; weights that share values choose them anew when rounding begins."""
        super().set_rounding(rounds)
        if self.sharer is not None and not rounds:
            self.sharer.reset()

    @property
    def layer(self) -> Layer:
        """Torch's own layer, whose weights are neither pruned nor quantised."""
        raise NotImplementedError

    @staticmethod
    def make_layer(operator: Operator, *, bias: bool) -> Layer:
        """A layer of the operator's shape, as torch initialises it."""
        raise NotImplementedError

    def by_output(self) -> Tensor:
        """The layer's weights (out, in of a group, …): as it has them, unless it keeps them in another order."""
        return self.layer.weight

    def laid_out(self, weight: Tensor) -> Tensor:
        """Weights (out, in of a group, …) in the order in which the layer keeps them: undoes `by_output`."""
        return weight

    def pruned(self) -> Tensor:
        """The weights (out, in of a group, …), those that are not kept set to zero."""
        return sparsify(self.by_output(), self.operator.density, self.operator.pattern)

    def rounded(self) -> Tensor:
        """The weights that it computes with, in the layer's order: pruned, then quantised or shared."""
        if not self.rounds:
            return self.laid_out(self.pruned())
        return self.laid_out(quantize_weight(self._shared(), self.operator.weight_bits))

    def _shared(self) -> Tensor:
        weight = self.pruned()
        return weight if self.sharer is None else cast(Tensor, self.sharer(weight))

    def folded(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Weight (out, …), factor per output channel, and bias: the layer with its batch normalisation in it.

        The weight is pruned, or shared, but not quantised yet.
        """
        weight = self._shared()
        if self.norm is None:
            return weight, torch.ones(len(weight)), self.layer.bias
        return weight, *folded_norm(self.norm)


class ConvUnit(ProductUnit):
    """A convolution with its bias or batch normalisation."""

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator)
        self.conv = self.make_layer(operator, bias=operator.affine == "bias")
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    @staticmethod
    def make_layer(operator: Operator, *, bias: bool) -> nn.Conv2d:
        """See `ProductUnit`."""
        o = operator
        return nn.Conv2d(
            o.in_channels, o.out_channels, o.kernel_size, o.stride, o.paddings, o.dilation, o.groups, bias=bias
        )

    @property
    def layer(self) -> nn.Conv2d:
        """See `ProductUnit`."""
        return self.conv

    def compute(self, *inputs: Tensor) -> Tensor:
        """Input (n, in, h, w) to (n, out, h', w')."""
        c = self.conv
        return functional.conv2d(inputs[0], self.rounded(), c.bias, c.stride, c.padding, c.dilation, groups=c.groups)


class DeconvUnit(ProductUnit):
    """A transposed convolution with its bias or batch normalisation.

    The layer's weights are in torch's order (in, out of a group, h, w).

    Raises:
        InvalidSpaceError: A size of the output that no such layer writes.
    """

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator)
        o = operator
        if not all(0 <= extra < max(o.stride, o.dilation) for extra in o.output_paddings):
            raise InvalidSpaceError(
                f"the transposed convolution {o.name!r} cannot write {o.out_size[0]}×{o.out_size[1]} positions from "
                f"{o.in_size[0]}×{o.in_size[1]} at kernel {o.kernel_size[0]}×{o.kernel_size[1]}, stride {o.stride}, "
                f"padding {o.paddings}: it would have to add {o.output_paddings} rows and columns, where it may add "
                "none, or fewer than its stride"
            )
        self.deconv = self.make_layer(o, bias=o.affine == "bias")
        nn.init.kaiming_normal_(self.deconv.weight, mode="fan_in", nonlinearity="relu")  # out · h · w, as convolutions
        if self.deconv.bias is not None:
            nn.init.zeros_(self.deconv.bias)

    @staticmethod
    def make_layer(operator: Operator, *, bias: bool) -> nn.ConvTranspose2d:
        """See `ProductUnit`."""
        o = operator
        return nn.ConvTranspose2d(
            o.in_channels, o.out_channels, o.kernel_size, o.stride, o.paddings, o.output_paddings, o.groups, bias,
            o.dilation,
        )  # fmt: skip

    @property
    def layer(self) -> nn.ConvTranspose2d:
        """See `ProductUnit`."""
        return self.deconv

    def by_output(self) -> Tensor:
        """See `ProductUnit`."""
        return exchanged(self.deconv.weight, self.operator.groups)

    def laid_out(self, weight: Tensor) -> Tensor:
        """See `ProductUnit`."""
        return exchanged(weight, self.operator.groups)

    def compute(self, *inputs: Tensor) -> Tensor:
        """Input (n, in, h, w) to (n, out, h', w')."""
        o, d = self.operator, self.deconv
        return functional.conv_transpose2d(
            inputs[0], self.rounded(), d.bias, d.stride, o.paddings, o.output_paddings, d.groups, d.dilation
        )


class LinearUnit(ProductUnit):
    """A linear layer on features; maps are flattened, and each token is computed by itself.

    Raises:
        InvalidSpaceError: Slopes per feature on tokens, of which torch has none.
    """

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator)
        if operator.on_tokens and operator.activation == "prelu":
            raise InvalidSpaceError(
                f"the linear layer {operator.name!r} on tokens cannot have the activation 'prelu', which has a slope "
                "per channel; choose another activation"
            )
        self.linear = self.make_layer(operator, bias=operator.affine == "bias")
        nn.init.normal_(self.linear.weight, std=0.01)
        if self.linear.bias is not None:
            nn.init.zeros_(self.linear.bias)

    @staticmethod
    def make_layer(operator: Operator, *, bias: bool) -> nn.Linear:
        """See `ProductUnit`."""
        return nn.Linear(operator.in_channels, operator.out_channels, bias=bias)

    @property
    def layer(self) -> nn.Linear:
        """See `ProductUnit`."""
        return self.linear

    def compute(self, *inputs: Tensor) -> Tensor:
        """Input (n, in, 1, 1) or (n, in) to (n, out); (n, tokens, in) to (n, tokens, out)."""
        x = inputs[0] if self.operator.on_tokens else inputs[0].flatten(1)
        return functional.linear(x, self.rounded(), self.linear.bias)


def exchanged(weight: Tensor, groups: int) -> Tensor:
    """Weights (a, b of a group, …) with their two channel dimensions exchanged: (b, a of a group, …).

    What was exchanged is had back by exchanging it again.
    """
    first, second, *kernel = weight.shape
    apart = weight.reshape(groups, first // groups, second, *kernel)
    return apart.transpose(1, 2).reshape(groups * second, first // groups, *kernel)
