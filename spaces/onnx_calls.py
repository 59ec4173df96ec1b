"""The ONNX nodes of ``call`` operators, as torch's exporter writes them.

The operations are exported once for each text, as a module of their own whose batch is free and whose constants are
inputs; then the nodes are copied into the graph under the operator's name.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import onnx
import torch
from onnx import inliner, numpy_helper
from torch import Tensor, nn

from hwnas.spaces.call_text import Call, Shape
from hwnas.spaces.calls import CallUnit, checked_call, run_call
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.onnx_writer import ACTIVATIONS, Writer
from hwnas.spaces.operator import Operator

BATCH = 2
"""Images of the example to export with; the exporter takes 0 and 1 for constants."""

ROUNDED = frozenset({"Gemm", "Conv", "ConvTranspose"})
"""Nodes whose float weights ONNX Runtime rounds; see `Writer.kept_float`."""


def write_call(writer: Writer, operator: Operator, unit: CallUnit, inputs: list[str]) -> str:
    """Adds a call's nodes ``<operator>/<number>_<kind>`` and constants, and gives the name of the tensor that it makes.

    Raises:
        InvalidSpaceError: Operations that torch cannot export for the writer's operator set.
    """
    name = operator.name
    shapes = tuple(writer.shapes[source] for source in operator.inputs)
    graph = exported_call(operator.call, shapes, writer.opset)
    if ROUNDED.intersection(node.op_type for node in graph.node):
        inputs = [writer.kept_float(operator, i, tensor) for i, tensor in enumerate(inputs)]
    constants = [
        writer.constant(name, f"constant_{i}", tensor.numpy(force=True)) for i, tensor in enumerate(unit.constants)
    ]
    tensors = {"": ""} | dict(zip((i.name for i in graph.input), [*inputs, *constants], strict=True))
    for number, tensor in enumerate(graph.initializer):
        tensors[tensor.name] = writer.constant(name, f"{ACTIVATIONS}{number}", numpy_helper.to_array(tensor))
    for number, node in enumerate(graph.node):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{name}/{number}_{node.op_type.lower()}"
        for position, output in enumerate(node.output):
            tensors[output] = output and (f"{copy.name}_{position}" if position else copy.name)
        copy.input[:] = [tensors[tensor] for tensor in node.input]
        copy.output[:] = [tensors[tensor] for tensor in node.output]
        writer.nodes.append(copy)
    (output,) = graph.output
    writer.shapes[name] = tuple(d.dim_value for d in output.type.tensor_type.shape.dim)[1:]
    result = tensors[output.name]
    return result if graph.node else writer.node(name, "Identity", [result])


@cache
def exported_call(text: str, shapes: tuple[Shape, ...], opset: int) -> onnx.GraphProto:
    """A call as a graph that reads its inputs, then its constants. It is shared: leave it as it is.

    Args:
        text: The call's.
        shapes: Of the inputs, the batch left out.
        opset: Of its nodes: 18 or newer.

    Raises:
        InvalidSpaceError: Operations that torch cannot export so; says which.
    """
    call = checked_call(text)
    buffers = tuple(torch.zeros(b.shape, dtype=getattr(torch, b.dtype)) for b in call.buffers)
    read = tuple(torch.zeros(BATCH, *shape) for shape in shapes)
    examples = (*read, *map(torch.zeros, call.parameters), *buffers)
    batch = torch.export.Dim("batch", min=1)
    dynamic = tuple({0: batch} if i < len(shapes) else {} for i in range(len(examples)))
    what = f"a call of {', '.join(call.names)} on {' and '.join(map(str, shapes))}"
    try:
        with _quiet(), torch.random.fork_rng(devices=[]):
            program = torch.onnx.export(
                _Chain(call, len(shapes)).eval(), examples, dynamo=True, opset_version=opset, dynamic_shapes=(dynamic,),
                verbose=False,
            )  # fmt: skip
        assert program is not None
        model = inliner.inline_local_functions(program.model_proto)
    except Exception as error:  # of torch's exporter, of many kinds
        root: BaseException = error
        while root.__cause__:
            root = root.__cause__
        reason = next(filter(None, map(str.strip, str(root).splitlines())), type(root).__name__)
        raise InvalidSpaceError(f"torch cannot write {what} as ONNX: {reason}") from error
    versions = {imported.domain: imported.version for imported in model.opset_import}
    foreign = {node.op_type for node in model.graph.node if node.domain}
    nested = {node.op_type for node in model.graph.node if any(a.g.ByteSize() or a.graphs for a in node.attribute)}
    if foreign or nested or versions.get("") != opset:
        kinds = f" (nodes {', '.join(sorted(foreign | nested))})" if foreign or nested else ""
        raise InvalidSpaceError(f"torch does not write {what} in plain nodes of ONNX's operator set {opset}{kinds}")
    return model.graph


class _Chain(nn.Module):
    """A call whose constants are inputs."""

    def __init__(self, call: Call, inputs: int) -> None:
        super().__init__()
        self.call = call
        self.inputs = inputs

    def forward(self, *tensors: Tensor) -> Tensor:
        return run_call(self.call, tensors[: self.inputs], tensors[self.inputs :])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of packages that are not there, and of its own code."""
    logger = logging.getLogger("torch.onnx")
    was = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(was)
