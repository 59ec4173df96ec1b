"""Reads what a torch module computes: `torch.export` writes it down in ATen operations, and these become a `Graph`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import OutputKind

from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.traced.aten import Reader
from hwnas.spaces.traced.fusing import fused
from hwnas.spaces.traced.graph import Graph

BATCHES = (211, 223, 227, 229)
"""Batch sizes to trace with: primes, so that a dimension that is a multiple of one is that of the batch."""


@dataclass(frozen=True)
class Traced:
    """What a model computes and what it has learnt.

    Attributes:
        graph: Its steps.
        state: The tensors that the graph's parameters name.
    """

    graph: Graph
    state: Mapping[str, Tensor]


def trace(module: nn.Module, example: Tensor) -> Traced:
    """The module in evaluation mode as a graph.

    Args:
        module: Reads images (n, channels, height, width), and returns one tensor.
        example: Such images; only their shape matters.

    Raises:
        InvalidSpaceError: `torch.export` cannot follow the module, or it reads or returns something else; says what.
    """
    if example.ndim != 4:
        raise InvalidSpaceError(f"a model must read images (n, channels, height, width), not {tuple(example.shape)}")
    modes = {name: m.training for name, m in module.named_modules()}
    module.eval()
    try:
        return _trace(module, tuple(example.shape[1:]))
    finally:
        for name, m in module.named_modules():
            m.training = modes[name]


def _trace(module: nn.Module, shape: tuple[int, ...]) -> Traced:
    half = [(name, tensor) for name, tensor in module.named_buffers() if tensor.dtype == torch.bfloat16]
    for name, tensor in [*module.named_parameters(), *half]:
        if tensor.dtype != torch.float32:
            raise InvalidSpaceError(
                f"a model must be in float32, and its {name} is {tensor.dtype}: call .float() on it"
            )
    sides = {*shape, *(side for tensor in module.state_dict().values() for side in tensor.shape)} - {0}
    batch = next((b for b in BATCHES if not any(side % b == 0 for side in sides)), BATCHES[0])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of its own code
            program = torch.export.export(module, (torch.empty(batch, *shape),)).run_decompositions({})
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidSpaceError(
            f"torch.export cannot follow {type(module).__name__}: {reason}; the model must read one tensor of "
            "images, and compute the same steps for all of them, without branches that depend on their values"
        ) from error
    written = [spec.target for spec in program.graph_signature.output_specs if spec.kind != OutputKind.USER_OUTPUT]
    if written:
        raise InvalidSpaceError(f"the model changes its {', '.join(map(str, written))} when it runs; leave that out")
    reader = Reader(_tensors(program), batch)
    graph = fused(reader.read(program.graph))
    graph = Graph(graph.nodes, {**graph.left, **_not_trained(module)})
    used = {name for node in graph for name in node.parameters.values()}
    return Traced(graph, {name: t.detach().clone() for name, t in reader.state.items() if name in used})


def _not_trained(module: nn.Module) -> dict[str, str]:
    """What only trains, and is in no exported program: by module, with the reason."""
    return {
        name: f"its dropout of {m.p:.0%} is not there while it is fine-tuned: the model is taken as it is evaluated"
        for name, m in module.named_modules()
        if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0
    }


def _tensors(program: Any) -> dict[str, tuple[str, Tensor]]:
    """The name in the module's state, and the value, of each placeholder that holds a parameter or constant."""
    signature = program.graph_signature
    names = signature.inputs_to_parameters | signature.inputs_to_buffers
    found = {}
    for placeholder, name in names.items():
        tensor = program.state_dict[name] if name in program.state_dict else program.constants[name]
        found[placeholder] = (name, tensor)
    for placeholder, name in signature.inputs_to_lifted_tensor_constants.items():
        found[placeholder] = (name, program.constants[name])
    return found
