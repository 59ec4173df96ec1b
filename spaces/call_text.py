"""The text of a ``call``: ATen operations one after the other, as canonical JSON. Reads and writes it; needs no torch.

    {"inputs":[[197,192]],"parameters":[[192],[192]],"steps":[{"args":[{"input":0},[192],{"parameter":0},
     {"parameter":1},1e-06],"kwargs":{},"op":"aten.layer_norm.default"}]}

(in one line, without spaces). The result is that of the last step, a single tensor whose first dimension is the batch.
``parameters`` are the shapes of the constants that are learnt, float32 all of them; ``buffers`` the types and shapes of
those that stay as they are, such as ``{"dtype":"int64","shape":[3]}``; ``inputs`` the shapes of the tensors read, the
batch left out. All three may be missing; where ``inputs`` is, the network around the call tells the shapes, and an
operator alone goes by its first input's channels and size (see `Call.shapes`). Arguments are as torch takes them, but
for these:

| argument                   | stands for                                                           |
|----------------------------|----------------------------------------------------------------------|
| ``{"input": i}``           | the i-th tensor that the operator reads                              |
| ``{"parameter": i}``       | the i-th constant that it has learnt                                 |
| ``{"buffer": i}``          | the i-th constant that stays as it is                                |
| ``{"step": k}``            | what the k-th step gave, an earlier one                              |
| ``{"step": k, "item": j}`` | the j-th of several tensors that it gave                             |
| ``{"batch": k}``           | k times the batch size, an integer                                   |
| ``{"dtype": "float32"}``   | a type of torch's                                                    |
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hwnas.spaces.errors import InvalidSpaceError

Shape = tuple[int, ...]

MOVERS = frozenset({
    "aten.view.default", "aten._unsafe_view.default", "aten.reshape.default", "aten.flatten.using_ints",
    "aten.unflatten.int", "aten.permute.default", "aten.transpose.int", "aten.t.default", "aten.select.int",
    "aten.slice.Tensor", "aten.narrow.default", "aten.expand.default", "aten.squeeze.dim", "aten.squeeze.dims",
    "aten.unsqueeze.default", "aten.contiguous.default", "aten.clone.default", "aten.alias.default",
    "aten.chunk.default", "aten.split.Tensor", "aten.split_with_sizes.default", "aten.unbind.int", "aten.roll.default",
    "aten.pixel_shuffle.default", "aten.pixel_unshuffle.default", "aten.max_pool2d.default",
    "aten.upsample_nearest2d.default", "aten.upsample_nearest2d.vec",
})  # fmt: skip
"""Operations whose results are values that they read: they are the same for integers and for the floats these are."""
DTYPES = {
    "float32": 4, "float64": 8, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1,
    "bool": 1,
}  # fmt: skip
"""Types of torch's that a text may name, and the bytes of a value."""
_OPERATION = re.compile(r"aten\.(\w+)\.(\w+)")
_REFERENCES = ({"input"}, {"parameter"}, {"buffer"}, {"step"}, {"step", "item"}, {"batch"}, {"dtype"})


@dataclass(frozen=True, slots=True)
class Step:
    """One operation: its name, such as ``aten.layer_norm.default``, and its arguments as in the text."""

    op: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Such as ``layer_norm``."""
        return self.op.split(".")[1]


@dataclass(frozen=True, slots=True)
class Buffer:
    """A constant that stays as it is: its type, one of `DTYPES`, and its shape."""

    dtype: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Call:
    """A text that was read.

    Attributes:
        steps: The operations, in order.
        parameters: Shapes of the constants that are learnt.
        buffers: Those that are not.
        inputs: Shapes of the tensors read, the batch left out; empty where the text does not say them.
    """

    steps: tuple[Step, ...]
    parameters: tuple[Shape, ...]
    buffers: tuple[Buffer, ...]
    inputs: tuple[Shape, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the operations, each once: ``("view", "layer_norm")``."""
        return tuple(dict.fromkeys(step.name for step in self.steps))

    @property
    def learnt(self) -> int:
        """How many numbers are learnt."""
        return sum(math.prod(shape) for shape in self.parameters)

    @property
    def constant_bytes(self) -> int:
        """Bytes of all constants, those that are not learnt among them."""
        return 4 * self.learnt + sum(DTYPES[b.dtype] * math.prod(b.shape) for b in self.buffers)

    @property
    def reads(self) -> int:
        """How many tensors it reads."""
        own: list[int] = [ref["input"] for step in self.steps for ref in _references(step) if "input" in ref]
        return max(len(self.inputs), 1, *(i + 1 for i in own))

    @property
    def moves(self) -> bool:
        """Whether all that it does is to move values of one tensor; see `MOVERS`."""
        fixed = not self.parameters and not self.buffers
        return fixed and self.reads == 1 and all(step.op in MOVERS for step in self.steps)

    def shapes(self, channels: int, size: tuple[int, int]) -> tuple[Shape, ...]:
        """Of the tensors read, the batch left out.

        Where the text does not say them, all are taken to be as the first one: maps of so many channels and that
        height and width, tokens (tokens, channels) where the size is (tokens, 1), or vectors where it is (1, 1).
        """
        height, width = size
        first = (channels, *size) if width > 1 else (height, channels) if height > 1 else (channels,)
        return self.inputs or (first,) * self.reads


@lru_cache(maxsize=8192)
def parse_call(text: str) -> Call:
    """Reads a text.

    Raises:
        InvalidSpaceError: It is not canonical JSON of the form above; says what is wrong. Whether torch has the
            operations is for `hwnas.spaces.calls` to say.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(text, f"is not JSON ({error})") from error
    if not isinstance(data, dict) or not isinstance(data.get("steps"), list) or not data["steps"]:
        raise _invalid(text, "has no steps")
    if odd := sorted(set(data) - {"steps", "parameters", "buffers", "inputs"}):
        raise _invalid(text, f"has the unknown key {odd[0]!r}")
    if _canonical(data) != text:
        raise _invalid(
            text, "is not canonical: sort its keys and leave spaces out, as hwnas.spaces.call_text.call_text"
        )
    parameters, inputs = (_shapes(text, data.get(key, []), key) for key in ("parameters", "inputs"))
    steps = tuple(_step(text, step) for step in data["steps"])
    call = Call(steps, parameters, _buffers(text, data.get("buffers", [])), inputs)
    for number, step in enumerate(call.steps):
        for reference in _references(step):
            _check(text, reference, number, call)
    return call


def call_text(
    steps: Iterable[tuple[str, Sequence[Any], Mapping[str, Any]]],
    parameters: Iterable[Sequence[int]] = (),
    inputs: Iterable[Sequence[int]] = (),
    buffers: Iterable[Buffer] = (),
) -> str:
    """The canonical text of steps (name, arguments, keyword arguments), constants, and shapes of what is read."""
    data: dict[str, Any] = {"steps": [{"op": o, "args": list(a), "kwargs": dict(k)} for o, a, k in steps]}
    for key, shapes in (("parameters", parameters), ("inputs", inputs)):
        if found := [list(shape) for shape in shapes]:
            data[key] = found
    if fixed := [{"dtype": b.dtype, "shape": list(b.shape)} for b in buffers]:
        data["buffers"] = fixed
    return _canonical(data)


def _canonical(data: Any) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def _invalid(text: str, what: str) -> InvalidSpaceError:
    shown = text if len(text) <= 120 else f"{text[:117]}..."
    return InvalidSpaceError(f"the text of a call {what}: {shown!r}")


def _shapes(text: str, shapes: Any, key: str) -> tuple[Shape, ...]:
    plain = isinstance(shapes, list) and all(isinstance(s, list) for s in shapes)
    if not plain or any(type(n) is not int or n < 0 for shape in shapes for n in shape):
        raise _invalid(text, f"has {key} that are no lists of sizes")
    return tuple(tuple(shape) for shape in shapes)


def _buffers(text: str, buffers: Any) -> tuple[Buffer, ...]:
    plain = isinstance(buffers, list) and all(isinstance(b, dict) and set(b) == {"dtype", "shape"} for b in buffers)
    if not plain:
        raise _invalid(text, 'has buffers that are no {"dtype": …, "shape": …}')
    for buffer in buffers:
        _check_dtype(text, buffer["dtype"])
    shapes = _shapes(text, [b["shape"] for b in buffers], "buffers")
    return tuple(Buffer(b["dtype"], shape) for b, shape in zip(buffers, shapes, strict=True))


def _check_dtype(text: str, name: Any) -> None:
    if type(name) is not str or name not in DTYPES:
        raise _invalid(text, f"has the unknown type {name!r} (known: {', '.join(DTYPES)})")


def _step(text: str, data: Any) -> Step:
    if not isinstance(data, dict) or set(data) - {"op", "args", "kwargs"} or not isinstance(data.get("op"), str):
        raise _invalid(text, 'has a step that is no {"op": …, "args": …, "kwargs": …}')
    op, args, kwargs = data["op"], data.get("args", []), data.get("kwargs", {})
    if not _OPERATION.fullmatch(op):
        raise _invalid(text, f"calls {op!r}; only operations of torch.ops.aten may be, such as 'aten.gelu.default'")
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise _invalid(text, f"has arguments of {op} that are no list, or keyword arguments that are no mapping")
    return Step(op, tuple(args), kwargs)


def _references(step: Step) -> Iterator[dict[str, Any]]:
    """Everything in a step's arguments that stands for something else."""
    waiting = [*step.args, *step.kwargs.values()]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            yield value


def _check(text: str, reference: dict[str, Any], number: int, call: Call) -> None:
    if set(reference) not in _REFERENCES:
        raise _invalid(text, f"has the unknown argument {reference}")
    if "dtype" in reference:
        _check_dtype(text, reference["dtype"])
        return
    if any(type(v) is not int or v < 0 for v in reference.values()):
        raise _invalid(text, f"has the argument {reference}, whose numbers must be whole and not negative")
    known = {
        "step": number, "parameter": len(call.parameters), "buffer": len(call.buffers),
        "input": len(call.inputs) or math.inf,
    }  # fmt: skip
    for key, count in known.items():
        if reference.get(key, -1) >= count:
            raise _invalid(text, f"names {reference} in step {number}, which there is not")
