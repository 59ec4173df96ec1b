"""How ATen operations that hwnas knows become nodes. Handlers give nothing for forms that they do not know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import fx

from hwnas.spaces.traced import layer_handlers as layers
from hwnas.spaces.traced import shape_handlers as shapes
from hwnas.spaces.traced.aten import Reader, Value
from hwnas.spaces.traced.operations import ACTIVATIONS

Handler = Callable[[Reader, fx.Node], Value | None]

HANDLERS: Mapping[str, Handler] = {
    "aten.conv2d.default": layers.conv,
    "aten.conv2d.padding": layers.conv,
    "aten.conv_transpose2d.input": layers.deconv,
    "aten.linear.default": layers.linear,
    "aten._native_batch_norm_legit_no_training.default": layers.norm,
    "aten.hardtanh.default": layers.hardtanh,
    "aten.relu6.default": partial(layers.activation, function="relu6"),
    "aten.gelu.default": layers.gelu,
    "aten.prelu.default": layers.prelu,
    "aten.add.Tensor": layers.add,
    "aten.mul.Tensor": layers.mul,
    "aten.cat.default": shapes.cat,
    "aten.split.Tensor": shapes.split,
    "aten.split_with_sizes.default": shapes.split,
    "aten.chunk.default": shapes.split,
    "aten.slice.Tensor": shapes.take,
    "aten.pad.default": shapes.pad,
    "aten.constant_pad_nd.default": shapes.pad,
    "aten.mean.dim": shapes.mean,
    "aten.adaptive_avg_pool2d.default": shapes.adaptive_pool,
    "aten.avg_pool2d.default": shapes.avg_pool,
    "aten.view.default": shapes.view,
    "aten.reshape.default": shapes.view,
    "aten._unsafe_view.default": shapes.view,
    "aten.flatten.using_ints": shapes.view,
    **{name: partial(layers.activation, function=function) for name, function in ACTIVATIONS.items()},
}
"""By the name of the operation."""
