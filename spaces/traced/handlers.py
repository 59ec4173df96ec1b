"""How ATen operations that hwnas knows become nodes. Handlers give nothing for forms that they do not know."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import fx

from hwnas.spaces.traced.aten import Reader, Value
from hwnas.spaces.traced.expressions import Batch, Expression, applied
from hwnas.spaces.traced.graph import Node, NodeKind
from hwnas.spaces.traced.operations import ACTIVATIONS

Handler = Callable[[Reader, fx.Node], Value | None]
SAME = -1
"""Margin of a convolution that keeps the size of its input, but for its stride."""


def _arguments(step: fx.Node, *defaults: tuple[str, Any]) -> list[Any]:
    """Of a step, by position or keyword."""
    return [
        step.args[i] if i < len(step.args) else step.kwargs.get(name, default)
        for i, (name, default) in enumerate(defaults)
    ]


def _one(value: Any) -> int | None:
    """The number that a list repeats, or None where it has several."""
    numbers = set(value) if isinstance(value, list | tuple) else {value}
    return int(numbers.pop()) if len(numbers) == 1 else None


def _conv(reader: Reader, step: fx.Node) -> Value | None:
    return _filter(reader, step, "conv", ("stride", "padding", "dilation", "groups"))


def _deconv(reader: Reader, step: fx.Node) -> Value | None:
    return _filter(reader, step, "deconv", ("stride", "padding", "output_padding", "groups", "dilation"))


def _filter(reader: Reader, step: fx.Node, kind: NodeKind, order: tuple[str, ...]) -> Value | None:
    """A convolution whose further arguments are in this order; what it pads its output by, its size tells."""
    usual = {"stride": [1], "padding": [0], "output_padding": [0], "dilation": [1], "groups": 1}
    defaults = [("input", None), ("weight", None), ("bias", None), *((name, usual[name]) for name in order)]
    given = dict(zip([name for name, _ in defaults], _arguments(step, *defaults), strict=True))
    x, name = given["input"], reader.parameter(given["weight"])
    if not reader.is_map(x, (3,)) or name is None:
        return None
    height, width = reader.state[name].shape[2:]
    stride, dilation = _one(given["stride"]), _one(given["dilation"])
    margin = None if stride is None or dilation is None else _margin(given["padding"], (height, width), dilation)
    if margin is None:
        reader.leave(name.rpartition(".")[0], "its stride, dilation or padding differs between rows and columns")
        return None
    attributes: dict[str, Any] = {"kernel": height} | ({"kernel_width": width} if height != width else {})
    attributes |= {"stride": stride, "dilation": dilation, "groups": int(given["groups"]), "margin": margin}
    parameters = {"weight": name, "bias": reader.parameter(given["bias"])}
    return reader.add(step, kind, [reader.node(x)], reader.shape(step), attributes, parameters)


def _margin(padding: Any, kernel: tuple[int, ...], dilation: int) -> int | None:
    if isinstance(padding, str):
        usual = all(k % 2 for k in kernel)
        return SAME if padding == "same" and usual else 0 if padding == "valid" else None
    pairs = list(padding) * (2 // len(padding))
    if pairs == [dilation * ((k - 1) // 2) for k in kernel]:
        return SAME
    return _one(pairs)


def _linear(reader: Reader, step: fx.Node) -> Value | None:
    x, weight, bias = _arguments(step, ("input", None), ("weight", None), ("bias", None))
    if step.target is torch.ops.aten.addmm.default:
        bias, x, weight = step.args[:3]
    name = reader.parameter(weight)
    if name is None or isinstance(reader.value(x), torch.Tensor):
        return None
    parameters = {"weight": name, "bias": reader.parameter(bias)}
    if reader.is_map(x, (1, 2)):
        return reader.add(step, "linear", [reader.node(x)], reader.shape(step), None, parameters)
    return _linear_elsewhere(reader, step, x, parameters)


def _linear_elsewhere(reader: Reader, step: fx.Node, x: fx.Node, parameters: Mapping[str, str | None]) -> Value | None:
    """A linear layer on a tensor whose batch does not come first, or is one dimension with others.

    It computes each row by itself, so rows may be brought into (batch, tokens, features) and back in any way that is
    undone afterwards.
    """
    given = tuple(int(n) for n in x.meta["val"].shape)
    batch, features = reader.batch, int(step.meta["val"].shape[-1])
    rows = math.prod(given[:-1])
    if rows % batch:
        return None
    value: Any = reader.value(x)
    at = given.index(batch) if batch in given[1:-1] else 0
    forth = applied("aten.transpose.int", value, 0, at) if at else value
    tokens = rows // batch
    if at != 1 or len(given) != 3:
        forth = applied("aten.reshape.default", forth, (Batch(1), tokens, given[-1]))
    source = _swapped_twice(value, at) or reader.call_of(step, forth, (tokens, given[-1]), "rows")
    node = reader.add(step, "linear", [source], (tokens, features), None, parameters)
    swapped = list(given[:-1])
    swapped[0], swapped[at] = swapped[at], swapped[0]
    back = tuple(Batch(n // batch) if n % batch == 0 else n for n in (*swapped, features))
    apart: Value = node if at == 1 and len(given) == 3 else applied("aten.reshape.default", node, back)
    return applied("aten.transpose.int", apart, 0, at) if at else apart


def _swapped_twice(value: Value, at: int) -> Node | None:
    """The node that a transposition of the batch and a dimension would give back, where the value is one of it."""
    if not isinstance(value, Expression) or value.target != "aten.transpose.int" or at != 1:
        return None
    source, *axes = value.args
    return source if isinstance(source, Node) and sorted(axes) == [0, 1] and len(source.shape) == 2 else None


def _norm(reader: Reader, step: fx.Node) -> Value | None:
    x, weight, bias, mean, variance, _, epsilon = step.args[:7]
    names = {
        "norm.weight": reader.parameter(weight), "norm.bias": reader.parameter(bias),
        "norm.mean": reader.parameter(mean), "norm.variance": reader.parameter(variance),
    }  # fmt: skip
    if not reader.is_map(x, (3,)) or names["norm.mean"] is None or names["norm.variance"] is None:
        return None
    assert isinstance(x, fx.Node)
    node = reader.add(step, "activate", [reader.node(x)], reader.shape(x), {"epsilon": epsilon}, names)
    return (node, node, node)


def _activation(reader: Reader, step: fx.Node, function: str) -> Value | None:
    (x, *_) = step.args
    if not reader.is_map(x):
        return None
    assert isinstance(x, fx.Node)
    return reader.add(step, "activate", [reader.node(x)], reader.shape(step), {"activation": function})


def _hardtanh(reader: Reader, step: fx.Node) -> Value | None:
    _, low, high = _arguments(step, ("input", None), ("min_val", -1.0), ("max_val", 1.0))
    return _activation(reader, step, "relu6") if (low, high) == (0.0, 6.0) else None


def _gelu(reader: Reader, step: fx.Node) -> Value | None:
    return _activation(reader, step, "gelu") if step.kwargs.get("approximate", "none") == "none" else None


def _prelu(reader: Reader, step: fx.Node) -> Value | None:
    x, slope = step.args[:2]
    name = reader.parameter(slope)
    if not reader.is_map(x) or name is None:
        return None
    assert isinstance(x, fx.Node)
    node = reader.node(x)
    if reader.state[name].numel() not in (1, node.channels):
        return None
    return reader.add(step, "activate", [node], reader.shape(step), {"activation": "prelu"}, {"slope": name})


def _add(reader: Reader, step: fx.Node) -> Value | None:
    x, y = step.args[:2]
    if not (reader.is_map(x) and reader.is_map(y)) or step.kwargs.get("alpha", 1) != 1:
        return None
    assert isinstance(x, fx.Node)
    assert isinstance(y, fx.Node)
    if reader.shape(x) != reader.shape(y):
        return None
    return reader.add(step, "add", [reader.node(x), reader.node(y)], reader.shape(step))


def _mul(reader: Reader, step: fx.Node) -> Value | None:
    x, y = step.args[:2]
    if not (reader.is_map(x, (3,)) and reader.is_map(y, (3,))):
        return None
    assert isinstance(x, fx.Node)
    assert isinstance(y, fx.Node)
    if reader.shape(x)[1:] == (1, 1) != reader.shape(y)[1:]:
        x, y = y, x
    if reader.shape(y) != (reader.shape(x)[0], 1, 1) or reader.shape(x)[1:] == (1, 1):
        return None
    return reader.add(step, "scale", [reader.node(x), reader.node(y)], reader.shape(step))


def _cat(reader: Reader, step: fx.Node) -> Value | None:
    tensors, dim = _arguments(step, ("tensors", None), ("dim", 0))
    if not all(reader.is_map(t, (3,)) for t in tensors) or dim not in (1, -3):
        return None
    return reader.add(step, "concat", [reader.node(t) for t in tensors], reader.shape(step))


def _split(reader: Reader, step: fx.Node) -> Value | None:
    """Split, chunk and their kin along channels, as a node for each part."""
    x = step.args[0]
    dim = _arguments(step, ("input", None), ("size", None), ("dim", 0))[2]
    if not reader.is_map(x, (3,)) or dim not in (1, -3):
        return None
    assert isinstance(x, fx.Node)
    source, parts, front = reader.node(x), [], 0
    for part in step.meta["val"]:
        shape = tuple(int(n) for n in part.shape[1:])
        parts.append(reader.add(step, "slice", [source], shape, {"front": front}))
        front += shape[0]
    return tuple(parts)


def _slice(reader: Reader, step: fx.Node) -> Value | None:
    x, dim, start, end, by = _arguments(step, ("input", None), ("dim", 0), ("start", 0), ("end", None), ("step", 1))
    assert isinstance(x, fx.Node)
    if x.meta["val"].shape == step.meta["val"].shape and by == 1:
        return reader.value(x)
    if not reader.is_map(x, (3,)):
        return None
    start = start or 0
    channels, _, width = reader.shape(x)
    if dim == 1 and by == 1:
        start = start + channels if start < 0 else start
        return reader.add(step, "slice", [reader.node(x)], reader.shape(step), {"front": start})
    # Every so-many-th row, then as many columns: the beginning of a shortcut without parameters.
    inner = _arguments(x, ("input", None), ("dim", 0), ("start", 0), ("end", None), ("step", 1))
    rows_first = dim == 3 and str(x.target) == "aten.slice.Tensor" and inner[1] == 2 and (inner[2] or 0) == 0
    if start == 0 and rows_first and inner[4] == by > 1 and _whole(end, width) and isinstance(inner[0], fx.Node):
        source = inner[0]
        if reader.is_map(source, (3,)) and _whole(inner[3], reader.shape(source)[1]):
            return reader.add(step, "pad", [reader.node(source)], reader.shape(step), {"stride": by, "front": 0})
    return None


def _whole(end: Any, length: int) -> bool:
    return end is None or end >= length


def _pad(reader: Reader, step: fx.Node) -> Value | None:
    x, pads = step.args[:2]
    mode, value = step.kwargs.get("mode", "constant"), step.kwargs.get("value", 0.0)
    if len(step.args) > 2:
        value = step.args[3] if len(step.args) > 3 else step.args[2] if step.target is _CONSTANT_PAD else value
        mode = step.args[2] if step.target is not _CONSTANT_PAD else mode
    numbers = [*pads] + [0] * (6 - len(pads))  # type: ignore[misc, arg-type]
    if not reader.is_map(x, (3,)) or mode != "constant" or value not in (0, 0.0, None) or any(numbers[:4]):
        return None
    if len(numbers) > 6 or min(numbers) < 0:
        return None
    assert isinstance(x, fx.Node)
    return reader.add(step, "pad", [reader.node(x)], reader.shape(step), {"stride": 1, "front": numbers[4]})


def _mean(reader: Reader, step: fx.Node) -> Value | None:
    x, dims, keep = _arguments(step, ("input", None), ("dim", None), ("keepdim", False))
    if not reader.is_map(x, (3,)) or sorted(d % 4 for d in dims or ()) != [2, 3]:
        return None
    return _global_pool(reader, step, x, flat=not keep)


def _adaptive_pool(reader: Reader, step: fx.Node) -> Value | None:
    x, size = step.args[:2]
    if not reader.is_map(x, (3,)) or _one(size) != 1:
        return None
    assert isinstance(x, fx.Node)
    return _global_pool(reader, step, x, flat=False)


def _avg_pool(reader: Reader, step: fx.Node) -> Value | None:
    x, kernel, _, padding, _, _, divisor = _arguments(
        step, ("input", None), ("kernel", None), ("stride", []), ("padding", [0]), ("ceil", False), ("count", True),
        ("divisor", None),
    )  # fmt: skip
    if not reader.is_map(x, (3,)) or _one(padding) != 0 or divisor is not None:
        return None
    if tuple(kernel) * (2 // len(kernel)) != reader.shape(x)[1:]:
        return None
    return _global_pool(reader, step, x, flat=False)


def _global_pool(reader: Reader, step: fx.Node, x: fx.Node, *, flat: bool) -> Node:
    node = reader.add(step, "pool", [reader.node(x)], (reader.shape(x)[0], 1, 1))
    return reader.add(step, "flatten", [node], (node.channels,)) if flat else node


def _view(reader: Reader, step: fx.Node) -> Value | None:
    """Maps made vectors, vectors made maps of 1×1, and channels shuffled between groups."""
    x = step.args[0]
    assert isinstance(x, fx.Node)
    if not isinstance(reader.value(x), torch.Tensor | tuple) and x.meta["val"].shape == step.meta["val"].shape:
        return reader.value(x)
    if reader.is_map(x, (3,)) and reader.is_map(step, (1,)):
        return reader.add(step, "flatten", [reader.node(x)], reader.shape(step))
    if reader.is_map(x, (1,)) and reader.is_map(step, (3,)) and reader.shape(step)[1:] == (1, 1):
        expression = applied("aten.reshape.default", reader.node(x), (Batch(1), -1, 1, 1))
        return reader.call_of(step, expression, reader.shape(step))
    return _shuffle(reader, step, x)


def _shuffle(reader: Reader, step: fx.Node, x: fx.Node) -> Node | None:
    """(c, h, w) → (g, c/g, h, w) → transposed → (c, h, w)."""
    chain = [x]
    while str(chain[-1].target) in ("aten.clone.default", "aten.contiguous.default"):
        chain.append(chain[-1].args[0])  # type: ignore[arg-type]
    swap = chain[-1]
    apart = swap.args[0] if swap.args else None
    if str(swap.target) == "aten.transpose.int":
        swapped = sorted(int(a) for a in swap.args[1:]) == [1, 2]  # type: ignore[arg-type]
    else:
        swapped = str(swap.target) == "aten.permute.default" and list(swap.args[1]) == [0, 2, 1, 3, 4]  # type: ignore[arg-type]
    if not swapped or not isinstance(apart, fx.Node):
        return None
    source = apart.args[0]
    names = ("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default")
    if str(apart.target) not in names or not reader.is_map(source, (3,)) or not reader.is_map(step, (3,)):
        return None
    assert isinstance(source, fx.Node)
    given = tuple(apart.meta["val"].shape[1:])
    if len(given) != 4 or given[2:] != reader.shape(source)[1:] or reader.shape(step) != reader.shape(source):
        return None
    return reader.add(step, "shuffle", [reader.node(source)], reader.shape(step), {"groups": int(given[0])})


def _flatten(reader: Reader, step: fx.Node) -> Value | None:
    return _view(reader, step)


_CONSTANT_PAD = torch.ops.aten.constant_pad_nd.default

HANDLERS: Mapping[str, Handler] = {
    "aten.conv2d.default": _conv,
    "aten.conv2d.padding": _conv,
    "aten.conv_transpose2d.input": _deconv,
    "aten.linear.default": _linear,
    "aten._native_batch_norm_legit_no_training.default": _norm,
    "aten.hardtanh.default": _hardtanh,
    "aten.relu6.default": partial(_activation, function="relu6"),
    "aten.gelu.default": _gelu,
    "aten.prelu.default": _prelu,
    "aten.add.Tensor": _add,
    "aten.mul.Tensor": _mul,
    "aten.cat.default": _cat,
    "aten.split.Tensor": _split,
    "aten.split_with_sizes.default": _split,
    "aten.chunk.default": _split,
    "aten.slice.Tensor": _slice,
    "aten.pad.default": _pad,
    "aten.constant_pad_nd.default": _pad,
    "aten.mean.dim": _mean,
    "aten.adaptive_avg_pool2d.default": _adaptive_pool,
    "aten.avg_pool2d.default": _avg_pool,
    "aten.view.default": _view,
    "aten.reshape.default": _view,
    "aten._unsafe_view.default": _view,
    "aten.flatten.using_ints": _flatten,
    **{name: partial(_activation, function=function) for name, function in ACTIVATIONS.items()},
}
"""By the name of the operation."""
