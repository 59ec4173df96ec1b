"""How ATen's layers, normalisations, activations and sums become nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from hwnas.spaces.operator import SAME
from hwnas.spaces.traced.arguments import arguments, one
from hwnas.spaces.traced.aten import Reader, Value
from hwnas.spaces.traced.expressions import Batch, applied
from hwnas.spaces.traced.graph import NodeKind
from hwnas.spaces.traced.rows import rows_of


def conv(reader: Reader, step: fx.Node) -> Value | None:
    """A convolution."""
    return _filter(reader, step, "conv", ("stride", "padding", "dilation", "groups"))


def deconv(reader: Reader, step: fx.Node) -> Value | None:
    """A transposed convolution."""
    return _filter(reader, step, "deconv", ("stride", "padding", "output_padding", "groups", "dilation"))


def _filter(reader: Reader, step: fx.Node, kind: NodeKind, order: tuple[str, ...]) -> Value | None:
    """A convolution whose further arguments are in this order; what it pads its output by, its size tells."""
    usual = {"stride": [1], "padding": [0], "output_padding": [0], "dilation": [1], "groups": 1}
    defaults = [("input", None), ("weight", None), ("bias", None), *((name, usual[name]) for name in order)]
    given = dict(zip([name for name, _ in defaults], arguments(step, *defaults), strict=True))
    x, name = given["input"], reader.parameter(given["weight"])
    if not reader.is_map(x, (3,)) or name is None:
        return None
    height, width = reader.state[name].shape[2:]
    stride, dilation = one(given["stride"]), one(given["dilation"])
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
    return one(pairs)


def linear(reader: Reader, step: fx.Node) -> Value | None:
    """A linear layer, wherever the batch is."""
    x, weight, bias = arguments(step, ("input", None), ("weight", None), ("bias", None))
    name = reader.parameter(weight)
    if name is None or isinstance(reader.value(x), torch.Tensor):
        return None
    parameters = {"weight": name, "bias": reader.parameter(bias)}
    if rows := rows_of(reader.value(x)):
        shape = (*rows.node.shape[:-1], int(step.meta["val"].shape[-1]))
        return rows.again(reader.add(step, "linear", [rows.node], shape, None, parameters))
    if reader.is_map(x, (1, 2)) and reader.shape(x)[:-1] != (1,):
        return reader.add(step, "linear", [reader.node(x)], reader.shape(step), None, parameters)
    return _linear_elsewhere(reader, step, x, parameters)


def _linear_elsewhere(reader: Reader, step: fx.Node, x: fx.Node, parameters: Mapping[str, str | None]) -> Value | None:
    """A linear layer on a tensor whose batch does not come first, or is one dimension with others, or of one token.

    It computes each row by itself, so rows may be brought into (batch, tokens, features) and back in any way that is
    undone afterwards; those of one token are vectors (batch, features).
    """
    given = tuple(int(n) for n in x.meta["val"].shape)
    batch, features = reader.batch, int(step.meta["val"].shape[-1])
    rows = math.prod(given[:-1])
    if rows % batch:
        return None
    tokens = (rows // batch,) if rows > batch else ()
    value: Any = reader.value(x)
    at = given.index(batch) if batch in given[1:-1] else 0
    swapped = list(given[:-1])
    swapped[0], swapped[at] = swapped[at], swapped[0]
    as_it_is = swapped == [batch, *tokens]
    forth = applied("aten.transpose.int", value, 0, at) if at else value
    if not as_it_is:
        forth = applied("aten.reshape.default", forth, (Batch(1), *tokens, given[-1]))
    source = reader.call_of(step, forth, (*tokens, given[-1]), "rows")
    node = reader.add(step, "linear", [source], (*tokens, features), None, parameters)
    back = tuple(Batch(n // batch) if n % batch == 0 else n for n in (*swapped, features))
    apart: Value = node if as_it_is else applied("aten.reshape.default", node, back)
    return applied("aten.transpose.int", apart, 0, at) if at else apart


def norm(reader: Reader, step: fx.Node) -> Value | None:
    """A batch normalisation of maps; the operation gives three results, of which one is used."""
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


def activation(reader: Reader, step: fx.Node, function: str) -> Value | None:
    """An activation by the name that operators have for it."""
    (x, *_) = step.args
    assert isinstance(x, fx.Node)
    if rows := rows_of(reader.value(x)):
        return rows.again(reader.add(step, "activate", [rows.node], rows.node.shape, {"activation": function}))
    if not reader.is_map(x):
        return None
    return reader.add(step, "activate", [reader.node(x)], reader.shape(step), {"activation": function})


def hardtanh(reader: Reader, step: fx.Node) -> Value | None:
    """ReLU6, where its bounds are those."""
    _, low, high = arguments(step, ("input", None), ("min_val", -1.0), ("max_val", 1.0))
    return activation(reader, step, "relu6") if (low, high) == (0.0, 6.0) else None


def gelu(reader: Reader, step: fx.Node) -> Value | None:
    """GELU in its exact form."""
    return activation(reader, step, "gelu") if step.kwargs.get("approximate", "none") == "none" else None


def prelu(reader: Reader, step: fx.Node) -> Value | None:
    """A PReLU of maps or vectors, of one slope or of one per channel; those of tokens torch has per token."""
    x, slope = step.args[:2]
    name = reader.parameter(slope)
    if not reader.is_map(x, (1, 3)) or name is None:
        return None
    assert isinstance(x, fx.Node)
    node = reader.node(x)
    if reader.state[name].numel() not in (1, node.channels):
        return None
    return reader.add(step, "activate", [node], reader.shape(step), {"activation": "prelu"}, {"slope": name})


def add(reader: Reader, step: fx.Node) -> Value | None:
    """A sum of two tensors of one shape."""
    x, y = step.args[:2]
    if not (reader.is_map(x) and reader.is_map(y)) or step.kwargs.get("alpha", 1) != 1:
        return None
    assert isinstance(x, fx.Node)
    assert isinstance(y, fx.Node)
    if reader.shape(x) != reader.shape(y):
        return None
    return reader.add(step, "add", [reader.node(x), reader.node(y)], reader.shape(step))


def mul(reader: Reader, step: fx.Node) -> Value | None:
    """Maps times a gate per channel."""
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
