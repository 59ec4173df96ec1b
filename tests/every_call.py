"""ATen operations as calls, and networks that feed them tensors of any shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from hwnas.spaces import Operator, Workload
from hwnas.spaces.call_text import Buffer, Shape, call_text
from hwnas.spaces.calls import CallUnit
from hwnas.spaces.network import Network
from tests.every_kind import lived_in

X, Y, Z, LAST = {"input": 0}, {"input": 1}, {"input": 2}, {"step": -1}
W, B = {"parameter": 0}, {"parameter": 1}
TOKENS, MAPS, HEADS = (5, 12), (6, 8, 8), (2, 5, 4)


@dataclass(frozen=True)
class Case:
    """Operations, the shapes of what they read and write for one image, and of their constants."""

    steps: tuple[tuple[str, list[Any], dict[str, Any]], ...]
    inputs: tuple[Shape, ...]
    output: Shape
    parameters: tuple[Shape, ...] = ()
    buffers: tuple[Buffer, ...] = ()

    @property
    def text(self) -> str:
        return call_text(self.steps, self.parameters, self.inputs, self.buffers)

    def operator(self, **fields: Any) -> Operator:
        """The call; shapes of other than three dimensions as the tracer gives them."""
        (cin, *in_size), (cout, *out_size) = as_maps(self.inputs[0]), as_maps(self.output)
        given = {"in_size": tuple(in_size), "out_size": tuple(out_size), "name": "call", "call": self.text, **fields}
        return Operator("call", cin, cout, **given)


def as_maps(shape: Shape) -> tuple[int, int, int]:
    """(channels, height, width), as operators say it."""
    match shape:
        case (features,):
            return features, 1, 1
        case (tokens, features):
            return features, tokens, 1
        case (channels, height, *rest):
            return channels, height, math.prod(rest)
    raise AssertionError(shape)


def one(op: str, *args: Any, on: Sequence[Shape], to: Shape, parameters: Sequence[Shape] = (), **kwargs: Any) -> Case:
    return Case(((f"aten.{op}", list(args), kwargs),), tuple(on), to, tuple(parameters))


def chain(
    *steps: tuple[str, list[Any]], on: Sequence[Shape], to: Shape, parameters: Sequence[Shape] = (),
    buffers: Sequence[Buffer] = (),
) -> Case:  # fmt: skip
    own = tuple((f"aten.{op}", args, {}) for op, args in steps)
    return Case(own, tuple(on), to, tuple(parameters), tuple(buffers))


COMPUTING: dict[str, Case] = {
    "layer_norm": one("layer_norm.default", X, [12], W, B, 1e-6, on=[TOKENS], to=TOKENS, parameters=[(12,), (12,)]),
    "gelu": one("gelu.default", X, on=[TOKENS], to=TOKENS),
    "gelu with tanh": one("gelu.default", X, on=[TOKENS], to=TOKENS, approximate="tanh"),
    "silu": one("silu.default", X, on=[MAPS], to=MAPS),
    "softmax": one("softmax.int", X, -1, on=[TOKENS], to=TOKENS),
    "attention": one("scaled_dot_product_attention.default", X, Y, Z, on=[HEADS] * 3, to=HEADS),
    "attention by hand": chain(
        ("transpose.int", [Y, -2, -1]), ("matmul.default", [X, {"step": 0}]), ("mul.Tensor", [{"step": 1}, 0.5]),
        ("softmax.int", [{"step": 2}, -1]), ("matmul.default", [{"step": 3}, Z]), on=[HEADS] * 3, to=HEADS,
    ),
    "heads": chain(
        ("view.default", [X, [{"batch": 1}, 5, 3, 2, 4]]), ("permute.default", [{"step": 0}, [2, 0, 3, 1, 4]]),
        ("unbind.int", [{"step": 1}]),
        ("scaled_dot_product_attention.default", [{"step": 2, "item": i} for i in range(3)]),
        ("transpose.int", [{"step": 3}, 1, 2]), ("reshape.default", [{"step": 4}, [{"batch": 1}, 5, 8]]),
        on=[(5, 24)], to=(5, 8),
    ),
    "matmul": one("matmul.default", X, Y, on=[(2, 5, 4), (2, 4, 3)], to=(2, 5, 3)),
    "matmul with a constant": one("matmul.default", X, W, on=[TOKENS], to=(5, 7), parameters=[(12, 7)]),
    "linear": one("linear.default", X, W, B, on=[TOKENS], to=(5, 7), parameters=[(7, 12), (7,)]),
    "addmm": one("addmm.default", B, X, W, on=[(12,)], to=(7,), parameters=[(12, 7), (7,)]),
    "bmm": one("bmm.default", X, Y, on=[(5, 4), (4, 3)], to=(5, 3)),
    "class token": chain(
        ("expand.default", [W, [{"batch": 1}, -1, -1]]), ("cat.default", [[{"step": 0}, X], 1]),
        ("add.Tensor", [{"step": 1}, B]), on=[TOKENS], to=(6, 12), parameters=[(1, 1, 12), (1, 6, 12)],
    ),
    "windows": chain(
        ("view.default", [X, [{"batch": 1}, 2, 4, 2, 4, 6]]), ("permute.default", [{"step": 0}, [0, 1, 3, 2, 4, 5]]),
        ("reshape.default", [{"step": 1}, [{"batch": 4}, 16, 6]]), ("softmax.int", [{"step": 2}, -1]),
        ("view.default", [{"step": 3}, [{"batch": 1}, 2, 2, 4, 4, 6]]),
        ("permute.default", [{"step": 4}, [0, 1, 3, 2, 4, 5]]),
        ("reshape.default", [{"step": 5}, [{"batch": 1}, 8, 8, 6]]), on=[(8, 8, 6)], to=(8, 8, 6),
    ),
    "avg_pool2d": one("avg_pool2d.default", X, [3, 3], [2, 2], [1, 1], on=[MAPS], to=(6, 4, 4)),
    "adaptive_avg_pool2d": one("adaptive_avg_pool2d.default", X, [4, 4], on=[MAPS], to=(6, 4, 4)),
    "adaptive_avg_pool2d to one": one("adaptive_avg_pool2d.default", X, [1, 1], on=[MAPS], to=(6, 1, 1)),
    "mean of tokens": one("mean.dim", X, [1], on=[TOKENS], to=(12,)),
    "mean of maps": one("mean.dim", X, [-1, -2], True, on=[MAPS], to=(6, 1, 1)),
    "upsample_bilinear2d": one("upsample_bilinear2d.vec", X, None, False, [2.0, 2.0], on=[MAPS], to=(6, 16, 16)),
    "upsample_bilinear2d to corners": one("upsample_bilinear2d.vec", X, [13, 9], True, None, on=[MAPS], to=(6, 13, 9)),
    "group_norm": one("group_norm.default", X, 3, W, B, 1e-5, on=[MAPS], to=MAPS, parameters=[(6,), (6,)]),
    "leaky_relu": one("leaky_relu.default", X, 0.1, on=[MAPS], to=MAPS),
    "tanh": one("tanh.default", X, on=[MAPS], to=MAPS),
    "mul": one("mul.Tensor", X, Y, on=[MAPS, MAPS], to=MAPS),
    "mul by a constant": one("mul.Tensor", X, W, on=[MAPS], to=MAPS, parameters=[(6, 1, 1)]),
    "gated halves": chain(
        ("chunk.default", [X, 2, 1]), ("sigmoid.default", [{"step": 0, "item": 1}]),
        ("mul.Tensor", [{"step": 0, "item": 0}, {"step": 1}]), on=[MAPS], to=(3, 8, 8),
    ),
    "in float64": chain(
        ("to.dtype", [X, {"dtype": "float64"}]), ("mul.Tensor", [{"step": 0}, 2.0]),
        ("to.dtype", [{"step": 1}, {"dtype": "float32"}]), on=[TOKENS], to=TOKENS,
    ),
    "what is not learnt": chain(
        ("index.Tensor", [X, [None, {"buffer": 1}]]), ("masked_fill.Scalar", [{"step": 0}, {"buffer": 0}, -1.0]),
        ("mul.Tensor", [{"step": 1}, W]), ("add.Tensor", [{"step": 2}, {"buffer": 2}]), on=[TOKENS], to=(7, 12),
        parameters=[(12,)],
        buffers=[Buffer("bool", (7, 12)), Buffer("int64", (7,)), Buffer("float32", (7, 1))],
    ),
}  # fmt: skip
"""Operations that compute something."""

MOVING: dict[str, Case] = {
    "view": one("view.default", X, [{"batch": 1}, 4, 15], on=[TOKENS], to=(4, 15)),
    "reshape": one("reshape.default", X, [{"batch": 1}, -1], on=[TOKENS], to=(60,)),
    "flatten": one("flatten.using_ints", X, 1, -1, on=[MAPS], to=(384,)),
    "unflatten": one("unflatten.int", X, 2, [3, 4], on=[TOKENS], to=(5, 3, 4)),
    "permute": one("permute.default", X, [0, 2, 3, 1], on=[MAPS], to=(8, 8, 6)),
    "transpose": one("transpose.int", X, 1, 2, on=[TOKENS], to=(12, 5)),
    "select": one("select.int", X, 1, 0, on=[TOKENS], to=(12,)),
    "slice": one("slice.Tensor", X, 1, 1, 4, on=[TOKENS], to=(3, 12)),
    "slice by two": one("slice.Tensor", X, 2, 0, 9223372036854775807, 2, on=[MAPS], to=(6, 4, 8)),
    "narrow": one("narrow.default", X, 1, 2, 3, on=[TOKENS], to=(3, 12)),
    "expand": one("expand.default", X, [-1, 7, -1], on=[(1, 12)], to=(7, 12)),
    "squeeze": one("squeeze.dim", X, 1, on=[(1, 12)], to=(12,)),
    "squeeze two": one("squeeze.dims", X, [2, 3], on=[(6, 1, 1)], to=(6,)),
    "unsqueeze": one("unsqueeze.default", X, 1, on=[(12,)], to=(1, 12)),
    "clone": one("clone.default", X, on=[TOKENS], to=TOKENS),
    "contiguous": one("contiguous.default", X, on=[TOKENS], to=TOKENS),
    "alias": one("alias.default", X, on=[TOKENS], to=TOKENS),
    "roll": one("roll.default", X, [2, 3], [2, 3], on=[MAPS], to=MAPS),
    "pixel_shuffle": one("pixel_shuffle.default", X, 2, on=[(8, 4, 4)], to=(2, 8, 8)),
    "pixel_unshuffle": one("pixel_unshuffle.default", X, 2, on=[(2, 8, 8)], to=(8, 4, 4)),
    "max_pool2d": one("max_pool2d.default", X, [3, 3], [2, 2], [1, 1], on=[MAPS], to=(6, 4, 4)),
    "max_pool2d dilated": one("max_pool2d.default", X, [2, 3], [1, 1], [0, 1], [2, 1], on=[MAPS], to=(6, 6, 8)),
    "max_pool2d over the edge": one("max_pool2d.default", X, [3, 3], [2, 2], [0, 0], [1, 1], True, on=[MAPS],
                                    to=(6, 4, 4)),
    "upsample_nearest2d": one("upsample_nearest2d.vec", X, None, [2.0, 2.0], on=[MAPS], to=(6, 16, 16)),
    "upsample_nearest2d to a size": one("upsample_nearest2d.default", X, [12, 16], on=[MAPS], to=(6, 12, 16)),
    "first of chunks": chain(
        ("chunk.default", [X, 2, 1]), ("clone.default", [{"step": 0, "item": 0}]), on=[MAPS], to=(3, 8, 8),
    ),
    "last of splits": chain(
        ("split_with_sizes.default", [X, [2, 1, 3], 1]), ("clone.default", [{"step": 0, "item": 2}]), on=[MAPS],
        to=(3, 8, 8),
    ),
    "one of equal splits": chain(
        ("split.Tensor", [X, 4, 1]), ("alias.default", [{"step": 0, "item": 1}]), on=[MAPS], to=(2, 8, 8),
    ),
    "to tokens": chain(
        ("flatten.using_ints", [X, 2]), ("transpose.int", [{"step": 0}, 1, 2]), on=[MAPS], to=(64, 6),
    ),
    "first of unbound": chain(
        ("unbind.int", [X, 1]), ("unsqueeze.default", [{"step": 0, "item": 4}, 1]), on=[TOKENS], to=(1, 12),
    ),
}  # fmt: skip
"""Operations that only move values."""
CASES = COMPUTING | MOVING


def fed(case: Case, bits: int = 32, out_bits: int = 0) -> Workload:
    """The call in a network whose images (1, 1, n) are the values of all that it reads, one after the other.

    Of fewer than 32 ``bits``, it reads and writes integers of so many, or writes such of ``out_bits``; a last operator
    turns them to floats.
    """
    sizes = [math.prod(shape) for shape in case.inputs]
    operators = [Operator("quantize", 1, 1, (1, sum(sizes)), (1, sum(sizes)), out_bits=bits, name="q")]
    front = 0
    for number, (size, shape) in enumerate(zip(sizes, case.inputs, strict=True)):
        part = chain(
            ("flatten.using_ints", [X, 1]), ("slice.Tensor", [{"step": 0}, 1, front, front + size]),
            ("reshape.default", [{"step": 1}, [{"batch": 1}, *shape]]), on=[(1, 1, sum(sizes))], to=shape,
        )  # fmt: skip
        operators.append(part.operator(name=f"part{number}", inputs=("q",), in_bits=bits, out_bits=bits))
        front += size
    names = tuple(f"part{number}" for number in range(len(sizes)))
    operators.append(case.operator(inputs=names, in_bits=bits, out_bits=out_bits or bits))
    if (out_bits or bits) <= 8:
        channels, *size = as_maps(case.output)
        height, width = size
        operators.append(
            Operator("activate", channels, channels, (height, width), (height, width), in_bits=8, name="floats")
        )
    return Workload.wire(operators if bits <= 8 else [_unquantised(o) for o in operators[1:]])


def _unquantised(operator: Operator) -> Operator:
    return replace(operator, inputs=tuple("input" if name == "q" else name for name in operator.inputs))


def image_shape(case: Case) -> tuple[int, int, int]:
    """Of the images that the network of `fed` reads."""
    return 1, 1, sum(math.prod(shape) for shape in case.inputs)


def built(case: Case, bits: int = 32, out_bits: int = 0) -> Network:
    """The network of `fed`, `lived_in`."""
    torch.manual_seed(0)
    return lived_in(Network(fed(case, bits, out_bits), image_shape(case)))


def call_unit(network: Network) -> CallUnit:
    """The call of a network of `fed`."""
    unit = network.units["call"]
    assert isinstance(unit, CallUnit)
    return unit
