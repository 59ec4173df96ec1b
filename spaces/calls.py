"""ATen operations that are kept exactly as they are, as a torch module: see `hwnas.spaces.call_text` for their text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from hwnas.spaces.call_text import Call, parse_call
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.operator import Operator
from hwnas.spaces.unit import Unit

STD = 0.02
"""Of fresh constants of two dimensions or more."""
_AS = {"aten.view.default": "aten.reshape.default", "aten._unsafe_view.default": "aten.reshape.default"}
"""Operations that want a certain order in memory, and what gives the same values for any."""


class CallUnit(Unit):
    """One ATen operation, or several, on the batch as it comes.

    Its constants are ``constant_0``, ``constant_1`` and so on: parameters, then the text's buffers, which are buffers
    here, too. Fresh parameters of one dimension are ones, and others small random numbers; fresh buffers are ones, or
    where they are no floats zeros, which are indexes of anything: whoever made the text knows what they are. Running
    statistics are not trained, even where a text has them among its parameters.

    Raises:
        InvalidSpaceError: A text that `parse_call` refuses, or an operation that may not be called (see `operation`).
    """

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator)
        self.call = checked_call(operator.call)
        statistics = _statistics(self.call)
        for i, shape in enumerate(self.call.parameters):
            constant = nn.Parameter(torch.ones(shape))
            if len(shape) > 1:
                nn.init.normal_(constant, std=STD)
            constant.requires_grad_(i not in statistics)
            self.register_parameter(f"constant_{i}", constant)
        for i, buffer in enumerate(self.call.buffers, len(self.call.parameters)):
            dtype = getattr(torch, buffer.dtype)
            self.register_buffer(f"constant_{i}", torch.full(buffer.shape, int(dtype.is_floating_point), dtype=dtype))

    @property
    def constants(self) -> list[Tensor]:
        """Its constants, in order."""
        return [getattr(self, f"constant_{i}") for i in range(len(self.call.parameters) + len(self.call.buffers))]

    def compute(self, *inputs: Tensor) -> Tensor:
        """The last step's result."""
        return run_call(self.call, inputs, self.constants)


def _statistics(call: Call) -> set[int]:
    """The constants that operations take as running means or variances, for which torch has no gradients."""
    return {
        given["parameter"]
        for step in call.steps
        for argument, given in zip(operation(step.op)._schema.arguments, step.args, strict=False)
        if argument.name in ("running_mean", "running_var") and isinstance(given, dict) and "parameter" in given
    }


def checked_call(text: str) -> Call:
    """The call of a text, whose operations torch has; raises `InvalidSpaceError` as `CallUnit`."""
    call = parse_call(text)
    for step in call.steps:
        operation(step.op)
    return call


def run_call(call: Call, inputs: Sequence[Tensor], constants: Sequence[Tensor]) -> Tensor:
    """The last step's result.

    Args:
        call: What to compute: a `checked_call`.
        inputs: What it reads, (n, …) each.
        constants: Its parameters, then its buffers, of the shapes and types that it says.

    Raises:
        InvalidSpaceError: Too few inputs, or a result that is not one tensor.
    """
    if len(inputs) < call.reads:
        raise InvalidSpaceError(f"a call of {', '.join(call.names)} reads {call.reads} tensors and got {len(inputs)}")
    batch = inputs[0].shape[0]
    results: list[Any] = []

    def value(argument: Any) -> Any:
        match argument:
            case {"input": i}:
                return inputs[i]
            case {"parameter": i}:
                return constants[i]
            case {"buffer": i}:
                return constants[len(call.parameters) + i]
            case {"step": k, "item": j}:
                return results[k][j]
            case {"step": k}:
                return results[k]
            case {"batch": k}:
                return k * batch
            case {"dtype": name}:
                return getattr(torch, name)
            case list():
                return [value(a) for a in argument]
        return argument

    for step in call.steps:
        arguments = {name: value(a) for name, a in step.kwargs.items()}
        results.append(_operation(step.op)(*map(value, step.args), **arguments))
    result = results[-1]
    if not isinstance(result, Tensor):
        raise InvalidSpaceError(f"a call must give one tensor, but its last step {call.steps[-1].op} gives several")
    return result


@lru_cache(maxsize=1024)
def operation(name: str) -> torch._ops.OpOverload[Any, Any]:
    """The operation of a name such as ``aten.gelu.default``.

    Raises:
        InvalidSpaceError: Torch has none of that name, or it does more than to compute tensors from tensors: it changes
            its arguments, or reads or writes a file.
    """
    try:
        found = _operation(name)
    except AttributeError:
        found = None
    if not name.startswith("aten.") or not isinstance(found, torch._ops.OpOverload):
        raise InvalidSpaceError(f"torch {torch.__version__} has no operation {name!r}, which a call names")
    schema = found._schema
    gives = [str(r.type) for r in schema.returns]
    computes = bool(gives) and all(kind in ("Tensor", "List[Tensor]") for kind in gives)
    if schema.is_mutable or not computes or any(a.name == "filename" for a in schema.arguments):
        raise InvalidSpaceError(
            f"a call names {name!r}, which does more than to compute tensors from tensors; leave it out, or take the "
            "form of it that changes nothing"
        )
    return found


def _operation(name: str) -> Any:
    """The same, unchecked: short enough for torch's compilers to look through."""
    _, packet, overload = _AS.get(name, name).split(".")
    return getattr(getattr(torch.ops.aten, packet), overload)
