"""ATen operations that are kept as they are, as expressions over nodes, which become calls where a node reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from hwnas.spaces.call_text import MOVERS, Buffer, Shape, call_text
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.traced.graph import Node

if TYPE_CHECKING:
    from hwnas.spaces.traced.aten import Reader


@dataclass(frozen=True, eq=False)
class Expression:
    """One operation on nodes, constants and other expressions.

    Attributes:
        target: Such as ``aten.view.default``.
        args, kwargs: As torch takes them, but for nodes, expressions, names of constants (`Constant`), `Batch` sizes.
        picked: Of several results, which; None where there is one.
        whole: The operation that gives these several results.
    """

    target: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    picked: int | None = None
    whole: Expression | None = None

    def item(self, index: int) -> Expression:
        """One of several results."""
        return Expression(self.target, (), {}, index, self)

    @property
    def moves(self) -> bool:
        """Whether it computes nothing."""
        return self.target in MOVERS


@dataclass(frozen=True)
class Constant:
    """A tensor of the model's state, by name; what is not learnt stays as it is, in its type."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    learnt: bool


@dataclass(frozen=True)
class Batch:
    """So many times the batch size."""

    times: int


def expression_of(reader: Reader, step: fx.Node, values: Mapping[fx.Node, Any]) -> Expression:
    """The operation of a step as an expression."""

    def convert(value: Any) -> Any:
        match value:
            case fx.Node():
                found = values[value]
                if isinstance(found, Tensor):
                    name = reader.parameter(value)
                    assert name is not None
                    return Constant(name, tuple(found.shape), _name_of(found.dtype), found.requires_grad)
                return tuple(found) if isinstance(found, tuple) else found
            case list() | tuple():
                return tuple(map(convert, value))
            case bool() | float() | str() | None | torch.dtype():
                return value
            case int():
                return Batch(value // reader.batch) if value and value % reader.batch == 0 else value
            case torch.memory_format() | torch.layout() | torch.device():
                return None
        raise InvalidSpaceError(f"hwnas cannot write down {value!r}, an argument of {step.target} in the model")

    kwargs = {name: convert(v) for name, v in step.kwargs.items() if name not in ("memory_format", "layout", "device")}
    return Expression(str(step.target), tuple(map(convert, step.args)), kwargs)


def applied(target: str, *args: Any) -> Expression:
    """An operation without keywords."""
    return Expression(target, args, {})


def call(expression: Expression) -> tuple[str, list[Node], list[str]]:
    """The text of a ``call``, see `hwnas.spaces.call_text`; the nodes that it reads, and names of its constants.

    Shapes of what it reads are in the text where they differ; else those of the operator say them.
    """
    steps: list[tuple[str, list[Any], dict[str, Any]]] = []
    numbers: dict[int, int] = {}
    inputs: list[Node] = []
    parameters: dict[str, Shape] = {}
    buffers: dict[str, Buffer] = {}

    def place(own: Expression) -> dict[str, Any]:
        if own.whole is not None:
            return place(own.whole) | {"item": own.picked}
        if id(own) not in numbers:
            step = (own.target, [write(a) for a in own.args], {name: write(v) for name, v in own.kwargs.items()})
            steps.append(step)
            numbers[id(own)] = len(steps) - 1
        return {"step": numbers[id(own)]}

    def write(value: Any) -> Any:
        match value:
            case Node():
                if value not in inputs:
                    inputs.append(value)
                return {"input": inputs.index(value)}
            case Expression():
                return place(value)
            case Constant(name, shape, _, learnt=True):
                parameters[name] = shape
                return {"parameter": list(parameters).index(name)}
            case Constant(name, shape, dtype):
                buffers[name] = Buffer(dtype, shape)
                return {"buffer": list(buffers).index(name)}
            case Batch():
                return {"batch": value.times}
            case torch.dtype():
                return {"dtype": _name_of(value)}
            case tuple():
                return [write(v) for v in value]
        return value

    last = place(expression)
    if "item" in last:
        steps.append(("aten.clone.default", [last], {}))
    shapes = [node.shape for node in inputs]
    text = call_text(steps, parameters.values(), shapes if len(set(shapes)) > 1 else (), buffers.values())
    return text, inputs, [*parameters, *buffers]


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
