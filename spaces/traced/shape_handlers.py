"""How ATen operations that join, cut, move and pool maps become nodes."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from hwnas.spaces.traced.arguments import arguments, one
from hwnas.spaces.traced.aten import Reader, Value
from hwnas.spaces.traced.expressions import Batch, applied
from hwnas.spaces.traced.graph import Node
from hwnas.spaces.traced.operations import VIEWS

_CONSTANT_PAD = torch.ops.aten.constant_pad_nd.default


def cat(reader: Reader, step: fx.Node) -> Value | None:
    """Maps one after the other along channels."""
    tensors, dim = arguments(step, ("tensors", None), ("dim", 0))
    if not all(reader.is_map(t, (3,)) for t in tensors) or dim not in (1, -3):
        return None
    return reader.add(step, "concat", [reader.node(t) for t in tensors], reader.shape(step))


def split(reader: Reader, step: fx.Node) -> Value | None:
    """Split, chunk and their kin along channels, as a node for each part."""
    x = step.args[0]
    dim = arguments(step, ("input", None), ("size", None), ("dim", 0))[2]
    if not reader.is_map(x, (3,)) or dim not in (1, -3):
        return None
    assert isinstance(x, fx.Node)
    source, parts, front = reader.node(x), [], 0
    for part in step.meta["val"]:
        shape = tuple(int(n) for n in part.shape[1:])
        parts.append(reader.add(step, "slice", [source], shape, {"front": front}))
        front += shape[0]
    return tuple(parts)


def take(reader: Reader, step: fx.Node) -> Value | None:
    """Consecutive channels, or every so-many-th row and column."""
    x, dim, start, end, by = arguments(step, ("input", None), ("dim", 0), ("start", 0), ("end", None), ("step", 1))
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
    # Every so-many-th row is taken already: the beginning of a shortcut without parameters.
    inner = arguments(x, ("input", None), ("dim", 0), ("start", 0), ("end", None), ("step", 1))
    rows_first = dim == 3 and str(x.target) == "aten.slice.Tensor" and inner[1] == 2 and (inner[2] or 0) == 0
    if start == 0 and rows_first and inner[4] == by > 1 and _whole(end, width) and isinstance(inner[0], fx.Node):
        source = inner[0]
        if reader.is_map(source, (3,)) and _whole(inner[3], reader.shape(source)[1]):
            return reader.add(step, "pad", [reader.node(source)], reader.shape(step), {"stride": by, "front": 0})
    return None


def _whole(end: Any, length: int) -> bool:
    return end is None or end >= length


def pad(reader: Reader, step: fx.Node) -> Value | None:
    """Channels of zeros around those of maps."""
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


def mean(reader: Reader, step: fx.Node) -> Value | None:
    """The mean of whole maps."""
    x, dims, keep = arguments(step, ("input", None), ("dim", None), ("keepdim", False))
    if not reader.is_map(x, (3,)) or sorted(d % 4 for d in dims or ()) != [2, 3]:
        return None
    return _global_pool(reader, step, x, flat=not keep)


def adaptive_pool(reader: Reader, step: fx.Node) -> Value | None:
    """Adaptive pooling to one value per map."""
    x, size = step.args[:2]
    if not reader.is_map(x, (3,)) or one(size) != 1:
        return None
    assert isinstance(x, fx.Node)
    return _global_pool(reader, step, x, flat=False)


def avg_pool(reader: Reader, step: fx.Node) -> Value | None:
    """Average pooling whose window is the whole map."""
    x, kernel, _, padding, _, _, divisor = arguments(
        step, ("input", None), ("kernel", None), ("stride", []), ("padding", [0]), ("ceil", False), ("count", True),
        ("divisor", None),
    )  # fmt: skip
    if not reader.is_map(x, (3,)) or one(padding) != 0 or divisor is not None:
        return None
    if tuple(kernel) * (2 // len(kernel)) != reader.shape(x)[1:]:
        return None
    return _global_pool(reader, step, x, flat=False)


def _global_pool(reader: Reader, step: fx.Node, x: fx.Node, *, flat: bool) -> Node:
    node = reader.add(step, "pool", [reader.node(x)], (reader.shape(x)[0], 1, 1))
    return reader.add(step, "flatten", [node], (node.channels,)) if flat else node


def view(reader: Reader, step: fx.Node) -> Value | None:
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
    if str(apart.target) not in VIEWS or not reader.is_map(source, (3,)) or not reader.is_map(step, (3,)):
        return None
    assert isinstance(source, fx.Node)
    given = tuple(apart.meta["val"].shape[1:])
    if len(given) != 4 or given[2:] != reader.shape(source)[1:] or reader.shape(step) != reader.shape(source):
        return None
    return reader.add(step, "shuffle", [reader.node(source)], reader.shape(step), {"groups": int(given[0])})
